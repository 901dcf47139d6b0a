"""
The hop to Triton against a server that answers, dawdles, stops in the middle or talks nonsense.

The server reads each request whole and then does what its script says; on both event loops that
the gateway may run on.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest
import uvloop

from gateway.triton.connections import Address, ConnectionBroken, Connections, HttpResponse
from gateway.triton.slots import PAGE_BYTES, Slot, Slots
from gateway.triton.v2_protocol import Buffer

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"
REQUEST: Sequence[Buffer] = [
    b"POST /x HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\n",
    memoryview(b"abc"),
]

Behave = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return await reader.readexactly(length)


class Server:
    """A server on loopback. `behave` is called for each request once it has been read."""

    def __init__(self, behave: Behave | None = None) -> None:
        self.behave = behave or self.answer
        self.accepted = 0
        self.open = 0
        self.requests = 0
        self.asked = asyncio.Condition()
        self.go_on = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()

    async def answer(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)

    async def answer_later(
        self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await self.go_on.wait()
        writer.write(OK)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.accepted += 1
        self.open += 1
        try:
            while True:
                assert await _read_request(reader) == b"abc"
                self.requests += 1
                await self._tell()
                await self.behave(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self._writers.discard(writer)
            self.open -= 1
            await self._tell()

    async def _tell(self) -> None:
        async with self.asked:
            self.asked.notify_all()

    async def until(self, fact: Callable[[], bool]) -> None:
        async with self.asked:
            await asyncio.wait_for(self.asked.wait_for(fact), 5)

    async def __aenter__(self) -> "Server":
        self._server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.address = Address("127.0.0.1", self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self.go_on.set()
        self._server.close()
        for writer in set(self._writers):
            writer.transport.abort()
        await self.until(lambda: not self._writers)


Story = Callable[[Server, Connections], Coroutine[Any, Any, None]]


@pytest.fixture(params=list(LOOPS))
def tell(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Return what runs a story with a server and connections to it, on each of the loops."""

    def run(story: Story, *, limit: int = 4) -> None:
        async def whole() -> None:
            async with Server() as server, AsyncExitStack() as stack:
                connections = Connections(server.address, limit=limit)
                stack.push_async_callback(connections.close)
                await asyncio.wait_for(story(server, connections), 20)

        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(whole())

    return run


def _exchange(connections: Connections, *slot: Any) -> "asyncio.Task[HttpResponse]":
    return asyncio.create_task(connections.exchange(REQUEST, *slot))


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def _gather(*tasks: "asyncio.Task[HttpResponse]") -> list[HttpResponse | BaseException]:
    return await asyncio.gather(*tasks, return_exceptions=True)


def _release(slot: Slot, _ended: object) -> None:
    slot.release()


async def _cancelled(task: "asyncio.Task[HttpResponse]") -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


Tell = Callable[..., None]


def test_a_connection_is_used_again(tell: Tell) -> None:
    """One exchange after another needs one connection; the answer is status, headers and body."""

    async def story(server: Server, connections: Connections) -> None:
        for _ in range(5):
            answer = await connections.exchange(REQUEST)
            assert answer.status == 200
            assert answer.headers == {"content-type": "text/plain", "content-length": "2"}
            assert answer.body == b"ok"
        assert (server.accepted, server.requests) == (1, 5)

    tell(story)


def test_an_answer_may_come_in_pieces(tell: Tell) -> None:
    """Byte by byte, in chunks, after "100 Continue": it is put together."""
    pieces = [OK[i : i + 1] for i in range(len(OK))]
    chunked = (
        b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nlong\r\n3\r\ner.\r\n0\r\n\r\n"
    )

    async def story(server: Server, connections: Connections) -> None:
        async def dribble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)

        async def in_chunks(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" + chunked[:60])
            await asyncio.sleep(0)
            writer.write(chunked[60:])

        server.behave = dribble
        assert (await connections.exchange(REQUEST)).body == b"ok"
        server.behave = in_chunks
        answer = await connections.exchange(REQUEST)
        assert (answer.status, answer.body) == (500, b"longer.")
        server.behave = server.answer
        assert (await connections.exchange(REQUEST)).body == b"ok"
        assert server.accepted == 1

    tell(story)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 200",
        OK[:-1],
        b"HTTP/1.1 200 OK\r\n\r\nno length",
    ],
)
def test_an_end_before_the_end_of_the_answer_is_told(tell: Tell, said: bytes) -> None:
    """Closed before or within the answer: ConnectionBroken; the next exchange connects anew."""

    async def story(server: Server, connections: Connections) -> None:
        async def stop_short(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(said)
            raise ConnectionResetError

        server.behave = stop_short
        with pytest.raises(ConnectionBroken):
            await connections.exchange(REQUEST)
        server.behave = server.answer
        assert (await connections.exchange(REQUEST)).body == b"ok"
        assert server.accepted == 2

    tell(story)


@pytest.mark.parametrize(
    "said",
    [
        b"\0\1\2\3 garbage\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n\1\2",
    ],
)
def test_garbage_is_told(tell: Tell, said: bytes) -> None:
    """What is no HTTP answer: ConnectionBroken at once, and the connection is closed."""

    async def story(server: Server, connections: Connections) -> None:
        async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(said)

        server.behave = babble
        with pytest.raises(ConnectionBroken):
            await connections.exchange(REQUEST)
        await server.until(lambda: server.open == 0)

    tell(story)


def test_nobody_there_is_told(tell: Tell) -> None:
    """Connection refused: ConnectionBroken, for those too who waited for a turn."""

    async def story(server: Server, _: Connections) -> None:
        async with Server() as other:
            address = other.address
        connections = Connections(address, limit=1)
        outcomes = await _gather(*(_exchange(connections) for _ in range(5)))
        assert [type(outcome) for outcome in outcomes] == [ConnectionBroken] * 5
        await connections.close()
        assert server.accepted == 0

    tell(story)


def test_the_limit_holds(tell: Tell) -> None:
    """Never more connections than the limit; who waits is served when one is free."""

    async def story(server: Server, connections: Connections) -> None:
        server.behave = server.answer_later
        tasks = [_exchange(connections) for _ in range(10)]
        await server.until(lambda: server.requests == 3)
        await _settle()
        assert (server.accepted, server.requests) == (3, 3)
        server.go_on.set()
        answers = await asyncio.gather(*tasks)
        assert [answer.body for answer in answers] == [b"ok"] * 10
        assert (server.accepted, server.requests) == (3, 10)

    tell(story, limit=3)


def test_a_waiter_that_gives_up_hands_its_turn_on(tell: Tell) -> None:
    """Cancelled just when its turn has come, or before: the next in the queue is served."""

    async def story(server: Server, connections: Connections) -> None:
        server.behave = server.answer_later
        first = _exchange(connections)
        await server.until(lambda: server.requests == 1)
        second, third, fourth = (_exchange(connections) for _ in range(3))
        await _settle()
        await _cancelled(second)
        # The moment in which the third was woken and has not run yet.
        first.add_done_callback(lambda _: third.cancel())
        server.go_on.set()
        assert (await first).body == b"ok"
        assert (await fourth).body == b"ok"
        assert isinstance((await _gather(third))[0], asyncio.CancelledError | HttpResponse)

    tell(story, limit=1)


def test_a_connect_that_is_given_up_hands_its_turn_on(tell: Tell) -> None:
    """Cancelled while its connection is made: who waits behind it is served."""

    async def story(server: Server, connections: Connections) -> None:
        first, second = _exchange(connections), _exchange(connections)
        await asyncio.sleep(0)
        assert server.accepted == 0
        await _cancelled(first)
        assert (await asyncio.wait_for(second, 5)).body == b"ok"

    tell(story, limit=1)


def test_a_given_up_exchange_closes_its_connection(tell: Tell) -> None:
    """Without a slot nothing needs the answer: Triton's side is closed, the place is free."""

    async def story(server: Server, connections: Connections) -> None:
        server.behave = server.answer_later
        task = _exchange(connections)
        await server.until(lambda: server.requests == 1)
        await _cancelled(task)
        server.behave = server.answer
        assert (await connections.exchange(REQUEST)).body == b"ok"
        assert server.accepted == 2
        server.go_on.set()
        await server.until(lambda: server.open == 1)

    tell(story, limit=1)


def test_a_slot_is_held_until_the_answer_has_come(tell: Tell) -> None:
    """Given up with a slot: it stays taken while Triton may read it, and counts for no limit."""

    async def story(server: Server, connections: Connections) -> None:
        slots = Slots(4 * PAGE_BYTES)
        slot = slots.take(PAGE_BYTES)
        assert slot is not None
        server.behave = server.answer_later
        task = _exchange(connections, slot)
        await server.until(lambda: server.requests == 1)
        await _cancelled(task)
        slot.release()
        assert slots.taken_bytes == PAGE_BYTES
        server.behave = server.answer
        for _ in range(3):
            assert (await connections.exchange(REQUEST)).body == b"ok"
        assert slots.taken_bytes == PAGE_BYTES
        server.go_on.set()
        # Its connection is not used again: nobody knows what else comes on it.
        await server.until(lambda: server.open == 1)
        assert slots.taken_bytes == 0
        assert server.accepted == 2

    tell(story, limit=1)


def test_a_slot_is_free_after_its_answer(tell: Tell) -> None:
    """An exchange that ends in order holds its slot no longer, whatever the status."""

    async def story(server: Server, connections: Connections) -> None:
        slots = Slots(PAGE_BYTES)

        async def fail(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert slots.taken_bytes == PAGE_BYTES
            writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")

        server.behave = fail
        for _ in range(3):
            slot = slots.take(1)
            assert slot is not None
            assert (await connections.exchange(REQUEST, slot)).status == 503
            slot.release()
            assert slots.taken_bytes == 0

    tell(story)


def test_a_slot_stays_taken_when_the_connection_breaks(tell: Tell) -> None:
    """No answer came: Triton may be reading still, so that nobody else gets the slot."""

    async def story(server: Server, connections: Connections) -> None:
        slots = Slots(4 * PAGE_BYTES)

        async def hang_up(_: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
            raise ConnectionResetError

        server.behave = hang_up
        slot = slots.take(1)
        assert slot is not None
        with pytest.raises(ConnectionBroken):
            await connections.exchange(REQUEST, slot)
        slot.release()
        assert slots.taken_bytes == PAGE_BYTES

    tell(story)


def test_an_answer_may_be_the_connections_last(tell: Tell) -> None:
    """`Connection: close`: the answer counts, and the next exchange connects anew."""
    last = OK.replace(b"Content-Length", b"Connection: close\r\nContent-Length")

    async def story(server: Server, connections: Connections) -> None:
        async def say_farewell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(last)

        server.behave = say_farewell
        for _ in range(3):
            assert (await connections.exchange(REQUEST)).body == b"ok"
        assert server.accepted == 3

    tell(story, limit=1)


def test_an_answer_that_nobody_asked_for_is_nobodys(tell: Tell) -> None:
    """A second answer behind the first, or one out of the blue, is no request's answer."""
    strange = OK.replace(b"ok", b"no")

    async def story(server: Server, connections: Connections) -> None:
        async def say_twice(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(OK + strange)

        server.behave = say_twice
        for _ in range(3):
            answers = await asyncio.gather(_exchange(connections), _exchange(connections))
            assert [answer.body for answer in answers] == [b"ok", b"ok"]

        async def say_more_later(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(OK)
            await server.go_on.wait()
            writer.write(strange)

        server.behave = say_more_later
        assert (await connections.exchange(REQUEST)).body == b"ok"
        server.go_on.set()
        await server.until(lambda: server.open == 0)
        server.behave = server.answer
        assert (await connections.exchange(REQUEST)).body == b"ok"

    tell(story)


def test_an_idle_connection_may_be_closed_by_triton(tell: Tell) -> None:
    """A server that closes what idles costs nobody a failure."""

    async def story(server: Server, connections: Connections) -> None:
        async def answer_and_leave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(OK)
            raise ConnectionResetError

        server.behave = answer_and_leave
        for accepted in range(1, 6):
            assert (await connections.exchange(REQUEST)).body == b"ok"
            await server.until(lambda: server.open == 0)
            await _settle()
            assert server.accepted == accepted

    tell(story, limit=1)


def test_a_close_fails_what_is_under_way(tell: Tell) -> None:
    """After `close` nobody waits for ever: asked, waiting in the queue, being connected, or new."""

    async def story(server: Server, connections: Connections) -> None:
        slots = Slots(PAGE_BYTES)
        slot = slots.take(1)
        server.behave = server.answer_later
        given_up, asked = _exchange(connections, slot), _exchange(connections)
        await server.until(lambda: server.requests == 2)
        await _cancelled(given_up)
        connecting, waiting = _exchange(connections), _exchange(connections)
        await asyncio.sleep(0)
        await connections.close()
        outcomes = await asyncio.wait_for(_gather(asked, connecting, waiting), 5)
        assert [type(outcome) for outcome in outcomes] == [ConnectionBroken] * 3
        with pytest.raises(ConnectionBroken):
            await connections.exchange(REQUEST)
        server.go_on.set()
        await server.until(lambda: server.open == 0)
        assert server.requests == 2

    tell(story, limit=2)


def test_many_come_and_go(tell: Tell) -> None:
    """Of two hundred exchanges, every third given up: each other one gets an answer, slots free."""

    async def story(server: Server, connections: Connections) -> None:
        slots = Slots(1024 * PAGE_BYTES)
        tasks = []
        for number in range(200):
            slot = slots.take(1) if number % 2 else None
            task = _exchange(connections, slot)
            if slot is not None:
                task.add_done_callback(partial(_release, slot))
            tasks.append(task)
            if number % 3 == 0:
                asyncio.get_running_loop().call_later(number / 20_000, task.cancel)
        outcomes = await asyncio.wait_for(_gather(*tasks), 10)
        for number, outcome in enumerate(outcomes):
            if number % 3:
                assert isinstance(outcome, HttpResponse), (number, outcome)
                assert outcome.body == b"ok"
        # One more on each connection: by then every answer before it has come.
        await server.until(lambda: True)
        for _ in range(50):
            await connections.exchange(REQUEST)
        assert slots.taken_bytes == 0

    tell(story)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8000", Address("127.0.0.1", 8000)),
        ("[::1]:80", Address("::1", 80)),
        ("triton:8000", Address("triton", 8000)),
    ],
)
def test_addresses_are_read(text: str, address: Address) -> None:
    """A name, an IPv4 or a bracketed IPv6 address, and the port."""
    assert Address.parse(text) == address
