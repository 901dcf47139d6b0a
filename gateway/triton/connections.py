"""
The hop to Triton: kept-alive HTTP/1.1 connections, one exchange at a time on each.

A general client spends more time on a request of a few hundred bytes than Triton does (see
docs/decisions/). This one writes bytes that are ready to be sent and reads a status, a few headers
and a body; nothing else of HTTP happens here.

An exchange whose caller has gone away is not broken off if Triton reads its input from a slot of
shared memory: the slot is held until the answer has come, and only then is another request's.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import httptools

from gateway.triton.slots import Slot
from gateway.triton.v2_protocol import Buffer


class HttpResponse(NamedTuple):
    """What came back: the status, the headers with names in lower case, and the body."""

    status: int
    headers: dict[str, str]
    body: bytes


class ConnectionBroken(Exception):
    """The connection could not be made, or ended before the answer did."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where Triton's HTTP service listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read "host:port" or "[address]:port"."""
        host, _, port = text.rpartition(":")
        return cls(host.strip("[]"), int(port))


class Connections:
    """
    The connections to one Triton.

    Args:
        address: Where it listens.
        limit: Most connections; more exchanges than that wait for one.
    """

    def __init__(self, address: Address, *, limit: int) -> None:
        self._address = address
        self._limit = limit
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._abandoned: set[_Connection] = set()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._closed = False

    @property
    def under_way(self) -> int:
        """Exchanges that have a connection and whose callers wait."""
        return len(self._open) - len(self._idle)

    async def exchange(self, request: Sequence[Buffer], slot: Slot | None = None) -> HttpResponse:
        """
        Send a request and return the answer to it.

        Args:
            request: The bytes to send.
            slot: Shared memory that Triton reads for it: held until the answer has come, even if
                the caller is gone by then.

        Raises:
            ConnectionBroken: No connection, or no whole answer.
        """
        connection = await self._take()
        return await connection.exchange(request, slot)

    async def close(self) -> None:
        """Close every connection. Exchanges under way fail."""
        self._closed = True
        for connection in self._open | self._abandoned:
            connection.abort()
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def _take(self) -> "_Connection":
        while not self._closed:
            while self._idle:
                # The last one used: the others may be closed for idling one day.
                connection = self._idle.pop()
                if connection.usable:
                    return connection
            if len(self._open) < self._limit:
                return await self._connect()
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    # Its turn had come: it is another's now.
                    self._wake()
                raise
        raise ConnectionBroken("closed")

    async def _connect(self) -> "_Connection":
        connection = _Connection(self)
        # It counts from here on, so that no more than the limit are made at once.
        self._open.add(connection)
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: connection, self._address.host, self._address.port
            )
        except BaseException as error:
            connection.abort()
            self.lost(connection)
            if isinstance(error, OSError):
                raise ConnectionBroken(str(error)) from error
            raise
        if self._closed or not connection.usable:
            connection.abort()
            raise ConnectionBroken("closed while it was opened")
        return connection

    def abandoned(self, connection: "_Connection") -> None:
        """
        Leave a connection to an answer that nobody waits for. It does not count for the limit: a
        model that hangs must not take the others' connections away.
        """
        self._open.discard(connection)
        self._abandoned.add(connection)
        self._wake()

    def idle(self, connection: "_Connection") -> None:
        """Take a connection back that is ready for the next exchange."""
        if connection in self._abandoned:
            connection.abort()
            return
        self._idle.append(connection)
        self._wake()

    def lost(self, connection: "_Connection") -> None:
        """Forget a connection."""
        self._open.discard(connection)
        self._abandoned.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._wake()

    def _wake(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


class _Connection(asyncio.Protocol):
    """One connection. `httptools` calls the `on_…` methods."""

    def __init__(self, connections: Connections) -> None:
        self.transport: asyncio.Transport | None = None
        self._connections = connections
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._answer: asyncio.Future[HttpResponse] | None = None
        self._slot: Slot | None = None

    @property
    def usable(self) -> bool:
        """Whether it can take an exchange: Triton has not closed it, nor have we."""
        return self.transport is not None and not self.transport.is_closing()

    def abort(self) -> None:
        """Close it at once; what is under way on it fails."""
        if self.transport is not None:
            self.transport.abort()

    async def exchange(self, request: Sequence[Buffer], slot: Slot | None) -> HttpResponse:
        """Send a request on this idle connection; see `Connections.exchange`."""
        assert self.transport is not None
        answer: asyncio.Future[HttpResponse] = asyncio.get_running_loop().create_future()
        self._answer, self._slot = answer, slot
        if slot is not None:
            slot.hold()
        self.transport.writelines(request)
        try:
            return await answer
        except asyncio.CancelledError:
            if self._answer is answer:
                if slot is None:
                    self.abort()
                else:
                    self._connections.abandoned(self)
            raise

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"unreadable answer: {error}")
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        # A slot that Triton was reading stays taken: whether its process is gone, nobody here
        # knows. If it is, the whole region goes with it.
        self._connections.lost(self)
        self._fail(str(exc or "closed by Triton"))

    def on_message_begin(self) -> None:
        if self._answer is None:
            # It would be taken for the answer to the next request.
            raise ConnectionBroken("an answer that nobody asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        headers, self._headers = self._headers, {}
        if status < 200:
            return
        body, self._body = b"".join(self._body), []
        answer, self._answer = self._answer, None
        slot, self._slot = self._slot, None
        if slot is not None:
            slot.release()
        if answer is not None and not answer.done():
            answer.set_result(HttpResponse(status, headers, body))
        if self._parser.should_keep_alive():
            self._connections.idle(self)
        else:
            self.abort()

    def _fail(self, reason: str) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(ConnectionBroken(reason))
