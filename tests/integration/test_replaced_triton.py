"""
Control calls that get no answer in time, and clients that are closed while they are waited for:
what waits must hear of it and go on.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.triton.actions import DesiredModel
from gateway.triton.client import TritonClient
from gateway.triton.endpoint import TritonEndpoint
from gateway.triton.errors import TritonUnreachable
from gateway.triton.reconciler import Reconciler
from gateway.triton.replicas import Replica
from tests.eventually import eventually
from tests.running_triton import RunningTriton, tiny_classifier, tiny_config
from tests.watching import watching


@asynccontextmanager
async def _silent() -> AsyncIterator[tuple[TritonEndpoint, asyncio.Event]]:
    """A server that takes connections and never says a word, and the event of the first one."""
    taken, over = asyncio.Event(), asyncio.Event()

    async def take(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.set()
        await over.wait()
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield TritonEndpoint(http_url=address, grpc_url=address), taken
    finally:
        over.set()
        server.close()


async def test_a_call_hears_that_its_client_is_closed() -> None:
    """Closing a client fails the calls under way; it does not cancel the tasks that wait."""
    async with _silent() as (endpoint, taken):
        client = TritonClient(endpoint)
        call = asyncio.create_task(client.index(timeout_s=30))
        await taken.wait()
        await client.close()
        with pytest.raises(TritonUnreachable):
            await asyncio.wait_for(call, 5)


async def test_a_cancelled_call_is_cancelled() -> None:
    """A task that was itself cancelled ends as cancelled."""
    async with _silent() as (endpoint, taken):
        client = TritonClient(endpoint)
        call = asyncio.create_task(client.index(timeout_s=30))
        await taken.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await client.close()


async def test_a_replica_is_watched_on_after_it_was_replaced(triton: RunningTriton) -> None:
    """A look that is under way when its Triton is replaced does not end the watch."""
    async with watching(Reconciler(dict, load_timeout_s=10)) as (monitor, _):
        async with _silent() as (endpoint, taken):
            replica = monitor.watch("replaced", endpoint)
            await taken.wait()
            await monitor.came_up(replica, triton.endpoint)
        assert replica.live
        replica.mark_down()
        await eventually(lambda: replica.live, within_s=5)


async def test_a_load_that_takes_too_long_is_a_failed_load(triton: RunningTriton) -> None:
    """Its reason names the setting, it is tried again later, and the replica still serves."""
    triton.add("late", tiny_classifier())
    wanted = DesiredModel("late", json.dumps(tiny_config()), frozenset({1}))
    reconciler = Reconciler(lambda: {"late": wanted}, load_timeout_s=0.02)
    replica = Replica("busy", triton.endpoint)
    replica.observe([], read_at_s=time.monotonic())
    await reconciler.reconcile(replica)
    failure = reconciler.loads.failure(replica, "late", 1)
    assert failure is not None
    assert failure.reason == "Triton was not done within 0.02 s (LOAD_TIMEOUT_S)"
    assert failure.retry_at_s > time.monotonic()
    assert replica.live
    await replica.client.close()
