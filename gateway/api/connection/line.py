"""
A connection's transport: how long it may be silent, and how it ends.

What is read from it and answered is `protocol.py`'s; the limits are `keeper.py`'s.
"""

import asyncio
from typing import cast

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.protocols.utils import get_local_addr, get_remote_addr
from uvicorn.server import ServerState

from gateway.api.connection.asgi import Endpoints
from gateway.api.connection.ending import Ending
from gateway.api.connection.exchanges import Flow, PlainExchange
from gateway.api.connection.keeper import NEVER_S, Keeper
from gateway.api.connection.raw_response import RawResponse


class Line(asyncio.Protocol):
    """
    The transport of one connection, with its deadlines.

    Attributes:
        keeper: Holds the limits; set by the class that is made for a server.
        idle: It waits for a request, and no byte of one has come.
    """

    keeper: Keeper

    def __init__(self, server_state: ServerState, loop: asyncio.AbstractEventLoop) -> None:
        self._server_state = server_state
        self._loop = loop
        self._exchange: RequestResponseCycle | PlainExchange | None = None
        self._ending: Ending | None = None
        self._read_by_s = NEVER_S
        self._written_by_s = NEVER_S
        self.idle = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # uvloop's are of a class of their own.
        self._transport = cast("asyncio.Transport", transport)
        self._flow = Flow(self._transport)
        self._read_by_s = self._loop.time() + self.keeper.limits.head_s
        self._ends = Endpoints(
            get_local_addr(self._transport),
            get_remote_addr(self._transport),
            "http" if transport.get_extra_info("sslcontext") is None else "https",
        )
        connections = cast("set[Line]", self._server_state.connections)
        if not self.keeper.make_place(connections):
            self._find_no_place()
        connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the way of asyncio
        """End."""
        cast("set[Line]", self._server_state.connections).discard(self)
        self._flow.resume_writing()

    def pause_writing(self) -> None:
        """Hear that the client does not read what is written."""
        self._written_by_s = self._loop.time() + self.keeper.limits.unread_s
        self._flow.pause_writing()

    def resume_writing(self) -> None:
        """Hear that it does again."""
        self._written_by_s = NEVER_S
        self._flow.resume_writing()

    @property
    def late_at_s(self) -> float:
        """When it will have been silent for too long, by the loop's clock."""
        if self._ending is not None:
            return self._ending.over_at_s
        return min(self._read_by_s, self._written_by_s)

    def end_late(self, now_s: float) -> None:
        """End it: what was owed to us did not come in time."""
        if self._ending is not None or self._written_by_s < now_s:
            self._transport.abort()
        elif self.idle:
            self._transport.close()
            # What was written before may never be read.
            self._ending = Ending(self._transport, now_s)
        elif self._flow.read_paused:
            # It is us who do not read.
            self._read_by_s = now_s + self.keeper.limits.body_start_s
        else:
            self._give_up()

    def end_idle(self) -> None:
        """End it: another one needs the place."""
        self._transport.close()

    def let_go(self) -> None:
        """Make the answer that is under way, or the next one, its last."""
        if self._exchange is not None:
            self._exchange.keep_alive = False

    def shutdown(self) -> None:
        """Hear from uvicorn that the server stops."""
        if self._exchange is None and self.idle:
            self._transport.close()
        self.let_go()

    def _find_no_place(self) -> None:
        """Refuse to serve: there are too many connections."""
        raise NotImplementedError

    def _give_up(self) -> None:
        """Refuse a request that does not come."""
        raise NotImplementedError

    def _end(self, reply: RawResponse | None, *, more_to_come: bool) -> None:
        """Write the last answer, and close when the client has had time to read it."""
        if reply is not None:
            also = self._server_state.default_headers
            self._transport.write(reply.encoded(also, keep_alive=False))
        self._ending = Ending(self._transport, self._loop.time())
        if more_to_come:
            # To close while bytes come is to reset the connection: the answer would be lost.
            self._ending.send_end()
            self._flow.let_go()
        else:
            self._transport.close()
