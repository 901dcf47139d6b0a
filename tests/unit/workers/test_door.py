"""Connections that are handed over, between real sockets."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from gateway.workers.door import Door, Entrance, Reception


class _Echo(asyncio.Protocol):
    """Answers with a name."""

    def __init__(self, name: bytes) -> None:
        self._name = name

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._name)
        transport.close()


@contextlib.asynccontextmanager
async def _reception(doors: list[Door]) -> AsyncIterator[tuple[str, int]]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    reception = Reception(listener, lambda: doors)
    reception.open()
    try:
        yield listener.getsockname()
    finally:
        reception.close()


def _pair() -> tuple[Door, socket.socket]:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Door(near), far


async def _answer(address: tuple[str, int]) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    answer = await reader.read()
    writer.close()
    return answer


async def test_connections_are_shared_evenly() -> None:
    """Twenty at once, ten to each worker."""
    pairs = [_pair() for _ in range(2)]
    entrances = [Entrance(far) for _, far in pairs]
    for name, entrance in zip((b"a", b"b"), entrances, strict=True):
        entrance.open(lambda name=name: _Echo(name))  # type: ignore[misc]  # a default argument
    async with _reception([door for door, _ in pairs]) as address:
        answers = await asyncio.gather(*(_answer(address) for _ in range(20)))
    assert sorted(answers) == [b"a"] * 10 + [b"b"] * 10
    assert [entrance.taken for entrance in entrances] == [10, 10]
    for (door, _), entrance in zip(pairs, entrances, strict=True):
        entrance.close()
        assert door.close() == []


async def test_a_connection_that_a_dead_worker_did_not_take_is_anothers() -> None:
    """Handed over and not taken, it is not lost with the worker."""
    (dead, far), (alive, other) = _pair(), _pair()
    doors = [dead]
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    reception = Reception(listener, lambda: doors)
    reception.open()
    answer = asyncio.create_task(_answer(listener.getsockname()))
    while dead.load[0] == 0:  # noqa: ASYNC110 - nothing announces it
        await asyncio.sleep(0.001)
    far.close()
    entrance = Entrance(other)
    entrance.open(lambda: _Echo(b"alive"))
    doors[:] = [alive]
    reception.place(dead.close())
    assert await answer == b"alive"
    reception.close()
    entrance.close()
    alive.close()


async def test_connections_wait_while_there_is_no_worker() -> None:
    """With nobody to take them they stay in the kernel's queue, and are answered later."""
    doors: list[Door] = []
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    reception = Reception(listener, lambda: doors)
    reception.open()
    answer = asyncio.create_task(_answer(listener.getsockname()))
    done, _ = await asyncio.wait([answer], timeout=0.1)
    assert not done
    door, far = _pair()
    entrance = Entrance(far)
    entrance.open(lambda: _Echo(b"late"))
    doors.append(door)
    reception.open()
    assert await answer == b"late"
    reception.close()
    entrance.close()
    door.close()
