"""
A connection: HTTP/1.1 requests, read and answered one after the other.

Plain runs (`fast_run.py`) are read as one body, answered by one task and written at once.
Everything else goes to the app, in uvicorn's words of ASGI. What is no valid request is answered
in the one shape of an error, and ends the connection. Limits are in `keeper.py`.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from gateway.api.connection.asgi import asgi_scope
from gateway.api.connection.exchanges import PlainExchange, app_cycle
from gateway.api.connection.fast_run import FastRuns
from gateway.api.connection.framing import BadRequest, Framing, Head
from gateway.api.connection.keeper import NEVER_S, BodyShare, Keeper
from gateway.api.connection.line import Line
from gateway.api.connection.raw_response import RawResponse
from gateway.api.errors import CLIENT_GONE
from gateway.errors import GatewayError, TooManyBodies, TooManyConnections
from gateway.telemetry.observation import observation_of

# A body of a refused request up to this size is read and forgotten, so that the connection goes on.
_FORGOTTEN_BYTES = 64 * 1024
_MEMORY = "The bodies of other requests take all memory that is set aside for them."


def http_protocol(runs: FastRuns, keeper: Keeper | None = None) -> type[asyncio.Protocol]:
    """Make the class of the connections whose plain runs `runs` answers."""

    class Served(Connection):
        pass

    Served.runs = runs
    Served.keeper = keeper or Keeper()
    return Served


class Connection(Line):
    """One connection. uvicorn makes it, and tells it when the server stops."""

    runs: FastRuns

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(server_state, _loop or asyncio.get_event_loop())
        self._config = config
        self._app = config.loaded_app
        self._app_state = app_state
        limits = self.keeper.limits
        self._framing = Framing(
            self._head_read, self._body_read, self._request_read, max_head_bytes=limits.head_bytes
        )
        self._share = BodyShare(self.keeper)
        self._reading = self._resting = self._streams = False

    # What the transport calls.

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if self._ending is not None:
            self._ending.forget(data)
            return
        self._framing.add(data)
        self._read()

    def connection_lost(self, exc: Exception | None) -> None:
        """End; whoever answers a request is told."""
        super().connection_lost(exc)
        exchange = self._exchange
        if exchange is None or exchange.response_complete:
            return
        exchange.disconnected = True
        if isinstance(exchange, RequestResponseCycle):
            exchange.message_event.set()
        elif not self._framing.ended:
            # The caller left within the body.
            exchange.seen.status = CLIENT_GONE
            self.runs.count(exchange.seen, exchange.began_s)
            self._share.release()

    # Reading.

    def _read(self) -> None:
        if self._reading or self._transport.is_closing():
            return
        self._reading = True
        try:
            while not self._resting and self._framing.step():
                if self._ending is not None or self._transport.is_closing():
                    return
        except BadRequest as fault:
            self._refuse(fault)
            return
        finally:
            self._reading = False
        framing, limits = self._framing, self.keeper.limits
        if framing.ended:
            self._read_by_s = NEVER_S
            if framing.waiting:
                self._flow.hold()
        elif framing.head is None and not self._resting:
            if framing.between:
                self.idle = True
                self._read_by_s = self._loop.time() + limits.idle_s
            elif self.idle:
                self.idle = False
                self._read_by_s = self._loop.time() + limits.head_s

    def _head_read(self, head: Head) -> None:
        self.idle, self._share = False, BodyShare(self.keeper)
        if head.length != 0:
            self._read_by_s = self._loop.time() + self.keeper.limits.body_start_s
        refusal = self.runs.refusal(head) or self._too_much(head)
        if refusal is not None:
            self._turn_away(head, refusal)
            return
        asked = self.runs.plain_run(head)
        if asked is None:
            self._leave_to_the_app(head)
            return
        self._exchange = PlainExchange(self._scope(head), asked, head)
        self._exchange.keep_alive = head.keep_alive and not self.keeper.draining

    def _too_much(self, head: Head) -> GatewayError | None:
        """Refuse a body by its length if memory would not suffice."""
        keeper, length = self.keeper, head.length or 0
        fits = keeper.body_bytes + length <= keeper.limits.body_memory_bytes
        return None if fits or self.runs.streams(head) else TooManyBodies(_MEMORY)

    def _body_read(self, piece: bytes) -> None:
        exchange, limits = self._exchange, self.keeper.limits
        now_s = self._loop.time()
        more_s = len(piece) / limits.body_bytes_per_s
        self._read_by_s = min(self._read_by_s + more_s, now_s + limits.body_start_s)
        if exchange is None or exchange.response_complete:
            return
        plain = isinstance(exchange, PlainExchange)
        if (plain or not self._streams) and not self._share.take(len(piece)):
            raise self.runs.fault_of(TooManyBodies(_MEMORY))
        if isinstance(exchange, PlainExchange):
            exchange.pieces.append(piece)
            exchange.seen.bytes_in += len(piece)
            return
        exchange.body += piece
        if len(exchange.body) > HIGH_WATER_LIMIT:
            self._flow.pause_reading()
        exchange.message_event.set()

    def _request_read(self) -> None:
        exchange = self._exchange
        if isinstance(exchange, PlainExchange):
            refusal = self.runs.refusal(exchange.head)
            if refusal is not None:
                exchange.pieces.clear()
                self._share.release()
                self._turn_away(exchange.head, refusal)
                self._go_on()
                return
            body = b"".join(exchange.pieces)
            exchange.pieces.clear()
            image = self.runs.image_of(exchange.asked, body)
            if image is not None:
                self.runs.announce()
                self._start(self._answer(exchange, image))
                return
            exchange = self._leave_to_the_app(exchange.head)
            exchange.body += body
        if exchange is not None and not exchange.response_complete:
            exchange.more_body = False
            exchange.message_event.set()
        else:
            self._go_on()

    # Answering.

    def _scope(self, head: Head) -> Scope:
        return asgi_scope(head, self._ends, self._config, self._app_state)

    def _leave_to_the_app(self, head: Head) -> RequestResponseCycle:
        cycle = app_cycle(
            self._scope(head),
            head,
            self._transport,
            self._flow,
            default_headers=self._server_state.default_headers,
            keep_alive=head.keep_alive and not self.keeper.draining,
            on_response=self._answered,
            is_last=lambda: self._framing.left_bytes > _FORGOTTEN_BYTES,
        )
        self._exchange = cycle
        self._streams = self.runs.streams(head)
        self._start(cycle.run_asgi(self._app))
        return cycle

    def _start(self, answering: Coroutine[Any, Any, None]) -> None:
        # Memory is held until the answer is there, whatever becomes of the connection.
        share = self._share
        task = self._loop.create_task(answering)
        self._server_state.tasks.add(task)
        task.add_done_callback(self._server_state.tasks.discard)
        task.add_done_callback(lambda _: share.release())

    async def _answer(self, run: PlainExchange, image: bytes) -> None:
        try:
            reply = await self.runs.answer(run.scope, image, run.asked.caller, run.seen)
            if self._flow.write_paused and not run.disconnected:
                await self._flow.drain()
            if not run.disconnected:
                run.response_complete = True
                self._write(reply, keep_alive=run.keep_alive)
                self._answered()
        finally:
            self.runs.count(run.seen, run.began_s)

    def _write(self, reply: RawResponse, *, keep_alive: bool) -> None:
        if not keep_alive:
            self._end(reply, more_to_come=not self._framing.ended or self._framing.waiting)
            return
        self._transport.write(reply.encoded(self._server_state.default_headers, keep_alive=True))

    def _answered(self) -> None:
        """Go on with the next request, if all of this one has been read."""
        self._server_state.total_requests += 1
        if self._ending is not None or self._transport.is_closing():
            return
        if self._framing.ended:
            self._go_on()
        elif self._framing.left_bytes > _FORGOTTEN_BYTES:
            self._end(None, more_to_come=True)
        else:
            self._flow.resume_reading()

    def _go_on(self) -> None:
        self._exchange = None
        if self._ending is None:
            self._framing.next()
            if not self._resting:
                self._flow.let_go()
            self._read()

    # Refusing.

    def _turn_away(self, head: Head, error: GatewayError) -> None:
        """Refuse a request by its head; its body is not looked at."""
        self._exchange = None
        reply = self.runs.refused(error, head)
        length = _FORGOTTEN_BYTES + 1 if head.length is None else head.length
        short = length <= _FORGOTTEN_BYTES and not head.expects_continue
        keep_alive = short and head.keep_alive and not self.keeper.draining
        self._write(reply, keep_alive=keep_alive)
        rest_s = self.keeper.rest_after_refusal_s(self._loop.time()) if keep_alive else 0.0
        if rest_s > 0.0:
            self._resting = True
            self._read_by_s = NEVER_S
            self._flow.hold()
            self._loop.call_later(rest_s, self._wake)

    def _wake(self) -> None:
        self._resting = False
        if self._ending is None and not self._transport.is_closing():
            self._flow.let_go()
            self._read()

    def _refuse(self, fault: BadRequest) -> None:
        """Answer what is no valid request; nothing that comes behind it is read."""
        exchange, self._exchange = self._exchange, None
        # What the app has begun to answer, it counts.
        reply = self.runs.refuse(fault, counted=isinstance(exchange, RequestResponseCycle))
        if exchange is not None:
            exchange.disconnected = True
            if isinstance(exchange, PlainExchange):
                self._share.release()
            else:
                observation_of(exchange.scope).status = fault.status
                exchange.message_event.set()
                if exchange.response_started:
                    self._transport.close()
                    return
        self._end(reply, more_to_come=True)

    def _find_no_place(self) -> None:
        no_place = TooManyConnections("Too many connections are open.")
        self._end(self.runs.refused(no_place, None), more_to_come=True)

    def _give_up(self) -> None:
        self._refuse(BadRequest(408, "request_timeout", "The request did not come in time."))
