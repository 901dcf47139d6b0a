"""
A connection: HTTP/1.1 requests, read and answered one after the other.

Plain runs (`fast_run.py`) are read as one body, answered by one task and written at once.
Everything else goes to the app, in uvicorn's words of ASGI. What is no valid request is answered
in the one shape of an error, and ends the connection.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any, cast

from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.protocols.utils import get_local_addr, get_remote_addr
from uvicorn.server import ServerState

from gateway.api.connection.asgi import Endpoints, asgi_scope
from gateway.api.connection.fast_run import FastRuns, PlainRun
from gateway.api.connection.framing import BadRequest, Framing, Head
from gateway.api.connection.raw_response import RawResponse
from gateway.api.middleware.metering import CLIENT_GONE, ENDPOINTS
from gateway.telemetry.observation import Observation

_LOGGER = logging.getLogger("uvicorn.error")
_MAX_HEAD_BYTES = 64 * 1024


def http_protocol(runs: FastRuns) -> type[asyncio.Protocol]:
    """Make the class of the connections whose plain runs `runs` answers."""

    class Served(Connection):
        pass

    Served.runs = runs
    return Served


class _Flow(FlowControl):
    """Flow control that does not read on while a later request waits."""

    behind = False

    def resume_reading(self) -> None:
        if not self.behind:
            super().resume_reading()


class _FastRun:
    """A plain run, in the place of uvicorn's cycle."""

    def __init__(self, scope: Scope, asked: PlainRun, head: Head) -> None:
        self.began_s = time.perf_counter()
        self.asked = asked
        self.scope = scope
        self.head = head
        self.keep_alive = head.keep_alive
        self.pieces: list[bytes] = []
        self.seen = Observation(ENDPOINTS["run_model"], asked.model)
        self.disconnected = False
        self.response_complete = False


class Connection(asyncio.Protocol):
    """One connection. uvicorn makes it, and tells it when the server stops."""

    runs: FastRuns

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._config = config
        self._app = config.loaded_app
        self._loop = _loop or asyncio.get_event_loop()
        self._server_state = server_state
        self._app_state = app_state
        self._framing = Framing(
            self._head_read, self._body_read, self._request_read, max_head_bytes=_MAX_HEAD_BYTES
        )
        self._cycle: RequestResponseCycle | _FastRun | None = None
        self._reading = False
        self._idle: asyncio.TimerHandle | None = None

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # uvloop's are of a class of their own.
        self._transport = cast("asyncio.Transport", transport)
        self._flow = _Flow(self._transport)
        self._server_state.connections.add(self)  # type: ignore[arg-type]  # one of ours
        self._ends = Endpoints(get_local_addr(self._transport), get_remote_addr(self._transport))

    def data_received(self, data: bytes) -> None:
        """Read on."""
        self._framing.add(data)
        self._read()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the way of asyncio
        """End; what is being answered is told."""
        self._server_state.connections.discard(self)
        self._set_idle(idle=False)
        self._flow.resume_writing()
        cycle = self._cycle
        if cycle is None or cycle.response_complete:
            return
        cycle.disconnected = True
        if isinstance(cycle, RequestResponseCycle):
            cycle.message_event.set()
        elif not self._framing.ended:
            # The caller left within the body.
            cycle.seen.status = CLIENT_GONE
            self.runs.count(cycle.seen, cycle.began_s)

    def pause_writing(self) -> None:
        """Hear that the client does not read what is written."""
        self._flow.pause_writing()

    def resume_writing(self) -> None:
        """Hear that it does again."""
        self._flow.resume_writing()

    def shutdown(self) -> None:
        """Hear from uvicorn that the server stops: this answer is the last one."""
        if self._cycle is None:
            self._transport.close()
        else:
            self._cycle.keep_alive = False

    # Reading.

    def _read(self) -> None:
        if self._reading or self._transport.is_closing():
            # An answer that is given at once comes here from within.
            return
        self._reading = True
        try:
            while self._framing.step():
                if self._transport.is_closing():
                    return
        except BadRequest as fault:
            self._refuse(fault)
            return
        finally:
            self._reading = False
        self._flow.behind = self._framing.ended and self._framing.waiting
        if self._flow.behind:
            self._flow.pause_reading()
        self._set_idle(idle=self._cycle is None and self._framing.between)

    def _head_read(self, head: Head) -> None:
        asked = self.runs.plain_run(head)
        if asked is not None:
            self._cycle = _FastRun(self._scope(head), asked, head)
        else:
            self._leave_to_the_app(head)

    def _body_read(self, piece: bytes) -> None:
        cycle = self._cycle
        if isinstance(cycle, _FastRun):
            # Bounded: the head said how long it is.
            cycle.pieces.append(piece)
            cycle.seen.bytes_in += len(piece)
        elif cycle is not None and not cycle.response_complete:
            cycle.body += piece
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self._flow.pause_reading()
            cycle.message_event.set()

    def _request_read(self) -> None:
        cycle = self._cycle
        if isinstance(cycle, _FastRun):
            body = b"".join(cycle.pieces)
            cycle.pieces.clear()
            image = self.runs.image_of(cycle.asked, body)
            if image is not None:
                self._start(self._answer(cycle, image))
                return
            cycle = self._leave_to_the_app(cycle.head)
            cycle.body += body
        if cycle is not None and not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()
        else:
            self._go_on()

    # Answering.

    def _scope(self, head: Head) -> Scope:
        return asgi_scope(head, self._ends, self._config, self._app_state)

    def _leave_to_the_app(self, head: Head) -> RequestResponseCycle:
        cycle = RequestResponseCycle(
            scope=self._scope(head),  # type: ignore[arg-type]  # a plain dict
            transport=self._transport,
            flow=self._flow,
            logger=_LOGGER,
            access_logger=_LOGGER,
            access_log=False,
            default_headers=self._server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=head.expects_continue,
            keep_alive=head.keep_alive,
            on_response=self._answered,
        )
        self._cycle = cycle
        self._start(cycle.run_asgi(self._app))
        return cycle

    def _start(self, answering: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(answering)
        self._server_state.tasks.add(task)
        task.add_done_callback(self._server_state.tasks.discard)

    async def _answer(self, run: _FastRun, image: bytes) -> None:
        try:
            reply = await self.runs.answer(run.scope, image, run.seen)
            if self._flow.write_paused and not run.disconnected:
                await self._flow.drain()
            if not run.disconnected:
                self._write(reply, keep_alive=run.keep_alive)
                run.response_complete = True
                self._answered()
        finally:
            self.runs.count(run.seen, run.began_s)

    def _write(self, reply: RawResponse, *, keep_alive: bool) -> None:
        also = self._server_state.default_headers
        self._transport.write(reply.encoded(also, keep_alive=keep_alive))
        if not keep_alive:
            self._transport.close()

    def _answered(self) -> None:
        """Go on with the next request, if all of this one has been read."""
        self._server_state.total_requests += 1
        if not self._transport.is_closing():
            self._flow.behind = False
            self._flow.resume_reading()
            if self._framing.ended:
                self._go_on()

    def _go_on(self) -> None:
        self._cycle = None
        self._framing.next()
        self._read()

    def _refuse(self, fault: BadRequest) -> None:
        """Answer what is no valid request; nothing that comes behind it is read."""
        cycle, reply = self._cycle, self.runs.refuse(fault)
        answered = False
        if cycle is not None:
            cycle.disconnected = True
            if isinstance(cycle, RequestResponseCycle):
                answered = cycle.response_started
                cycle.message_event.set()
        if answered:
            self._transport.close()
        else:
            self._write(reply, keep_alive=False)

    def _set_idle(self, *, idle: bool) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if idle:
            self._idle = self._loop.call_later(
                self._config.timeout_keep_alive, self._transport.close
            )
