"""What the monitor makes of a replica that does not answer."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from gateway.triton.endpoint import TritonEndpoint
from gateway.triton.monitor import Monitor
from gateway.triton.replica import Replica, Served
from gateway.triton.replicas import ReplicaSet


class _NoRepairs:
    """Repairs nothing."""

    async def reconcile(self, replica: Replica) -> None:
        """Return."""

    async def repair(self, replica: Replica, served: Served, *, noticed_at_s: float) -> None:
        """Return."""

    def tried_at_s(self, replica: Replica, served: Served) -> float:  # noqa: ARG002
        return 0.0


@pytest.fixture
async def silent() -> AsyncIterator[str]:
    """A server that takes connections and says nothing, as one that was halted."""

    async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            pass
        writer.close()

    server = await asyncio.start_server(be_silent, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"


@pytest.mark.parametrize("stalled", [True, False])
async def test_a_loop_that_stood_still_takes_nobody_for_dead(silent: str, *, stalled: bool) -> None:
    """Silence counts against a replica only if we were there to hear an answer."""
    replicas = ReplicaSet()
    monitor = Monitor(replicas, _NoRepairs(), poll_s=60.0, shared_bytes=lambda _: 0)
    replica = Replica("r", TritonEndpoint(silent, silent), monitor)
    replica.live = True
    if stalled:
        asyncio.get_running_loop().call_later(0.2, time.sleep, 1.2)
    await monitor.look(replica)
    assert replica.live == stalled
    await replica.client.close()
    await monitor.stop()
