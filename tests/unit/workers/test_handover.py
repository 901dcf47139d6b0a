"""Connections that are handed over, between real sockets."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from gateway.workers.parent.acceptor import Acceptor
from gateway.workers.wire.handover import Handover, HandoverReceiver


class _Echo(asyncio.Protocol):
    """Answers with a name."""

    def __init__(self, name: bytes) -> None:
        self._name = name

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._name)
        transport.close()


@contextlib.asynccontextmanager
async def _acceptor(handovers: list[Handover]) -> AsyncIterator[tuple[str, int]]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    acceptor = Acceptor(listener, lambda: handovers)
    acceptor.open()
    try:
        yield listener.getsockname()
    finally:
        acceptor.close()


def _pair() -> tuple[Handover, socket.socket]:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Handover(near), far


async def _answer(address: tuple[str, int]) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    answer = await reader.read()
    writer.close()
    return answer


async def test_connections_are_shared_evenly() -> None:
    """Twenty at once, ten to each worker."""
    pairs = [_pair() for _ in range(2)]
    receivers = [HandoverReceiver(far) for _, far in pairs]
    for name, receiver in zip((b"a", b"b"), receivers, strict=True):
        receiver.open(lambda name=name: _Echo(name))  # type: ignore[misc]  # a default argument
    async with _acceptor([handover for handover, _ in pairs]) as address:
        answers = await asyncio.gather(*(_answer(address) for _ in range(20)))
    assert sorted(answers) == [b"a"] * 10 + [b"b"] * 10
    assert [receiver.taken for receiver in receivers] == [10, 10]
    for (handover, _), receiver in zip(pairs, receivers, strict=True):
        receiver.close()
        assert handover.close() == []


async def test_a_connection_that_a_dead_worker_did_not_take_is_anothers() -> None:
    """Handed over and not taken, it is not lost with the worker."""
    (dead, far), (alive, other) = _pair(), _pair()
    handovers = [dead]
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    acceptor = Acceptor(listener, lambda: handovers)
    acceptor.open()
    answer = asyncio.create_task(_answer(listener.getsockname()))
    while dead.load[0] == 0:  # noqa: ASYNC110 - nothing announces it
        await asyncio.sleep(0.001)
    far.close()
    receiver = HandoverReceiver(other)
    receiver.open(lambda: _Echo(b"alive"))
    handovers[:] = [alive]
    acceptor.place(dead.close())
    assert await answer == b"alive"
    acceptor.close()
    receiver.close()
    alive.close()


async def test_connections_wait_while_there_is_no_worker() -> None:
    """With nobody to take them they stay in the kernel's queue, and are answered later."""
    handovers: list[Handover] = []
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    acceptor = Acceptor(listener, lambda: handovers)
    acceptor.open()
    answer = asyncio.create_task(_answer(listener.getsockname()))
    done, _ = await asyncio.wait([answer], timeout=0.1)
    assert not done
    handover, far = _pair()
    receiver = HandoverReceiver(far)
    receiver.open(lambda: _Echo(b"late"))
    handovers.append(handover)
    acceptor.open()
    assert await answer == b"late"
    acceptor.close()
    receiver.close()
    handover.close()
