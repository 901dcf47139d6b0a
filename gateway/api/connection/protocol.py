"""
HTTP/1.1 as uvicorn speaks it, but for plain runs (`fast_run.py`): these are read as one body,
answered by one task and written at once. Everything else goes to the app, as ever.

One parser and one connection serve both, and the requests on a connection are answered in turn.
"""

import asyncio
import time
from typing import cast

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway.api.connection.fast_run import FastRuns, PlainRun, RawResponse
from gateway.api.middleware.metering import CLIENT_GONE, ENDPOINTS
from gateway.telemetry.observation import Observation


def http_protocol(runs: FastRuns) -> type[asyncio.Protocol]:
    """Make the class of the connections whose plain runs `runs` answers."""

    class Connection(_Connection):
        pass

    Connection.runs = runs
    return Connection


class _Nobody:
    """Waits for the pieces of a plain run: its task begins when they are all there."""

    def set(self) -> None:
        pass


class _FastRun:
    """A plain run, in the place of uvicorn's cycle: with what its protocol looks at there."""

    message_event = _Nobody()

    def __init__(self, scope: Scope, asked: PlainRun, *, keep_alive: bool) -> None:
        self.began_s = time.perf_counter()
        self.asked = asked
        self.scope = scope
        self.keep_alive = keep_alive
        self.pieces: list[bytes] = []
        self.seen = Observation(ENDPOINTS["run_model"], asked.model)
        self.disconnected = False
        self.response_complete = False


class _Connection(HttpToolsProtocol):
    """One connection. The parser calls the `on_…` methods, in this order."""

    runs: FastRuns
    reading: _FastRun | None = None

    def on_headers_complete(self) -> None:
        asked = self._plain_run()
        if asked is None:
            super().on_headers_complete()
            return
        head = {"method": "POST", "path": self.url.decode(), "query_string": b""}
        scope = cast("Scope", {**self.scope, **head})
        self.reading = _FastRun(scope, asked, keep_alive=self.parser.should_keep_alive())
        self.cycle = self.reading  # type: ignore[assignment]  # in its place

    def _plain_run(self) -> PlainRun | None:
        parser = self.parser
        if (
            parser.get_method() != b"POST"
            or parser.get_http_version() != "1.1"
            or parser.should_upgrade()
            or self.expect_100_continue
            # Sent before the one before it was answered: uvicorn has it wait.
            or (self.cycle is not None and not self.cycle.response_complete)
        ):
            return None
        return self.runs.plain_run(self.url, self.headers)

    def on_body(self, body: bytes) -> None:
        if self.reading is None:
            super().on_body(body)
            return
        # Bounded: the head said how long it is.
        self.reading.pieces.append(body)
        self.reading.seen.bytes_in += len(body)

    def on_message_complete(self) -> None:
        run, self.reading = self.reading, None
        if run is None:
            super().on_message_complete()
            return
        body = b"".join(run.pieces)
        run.pieces.clear()
        image = self.runs.image_of(run.asked, body)
        if image is None:
            self._leave_to_the_app(body)
            return
        task = self.loop.create_task(self._answer(run, image))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _leave_to_the_app(self, body: bytes) -> None:
        self.cycle = None  # type: ignore[assignment]  # as before the request
        super().on_headers_complete()
        super().on_body(body)
        super().on_message_complete()

    async def _answer(self, run: _FastRun, image: bytes) -> None:
        try:
            reply = await self.runs.answer(run.scope, image, run.seen)
            if self.flow.write_paused and not run.disconnected:
                await self.flow.drain()
            if not run.disconnected:
                self._write(run, reply)
        finally:
            self.runs.count(run.seen, run.began_s)

    def _write(self, run: _FastRun, reply: RawResponse) -> None:
        pieces = [STATUS_LINE[reply.status]]
        for name, value in (*self.server_state.default_headers, *reply.headers):
            pieces += name, b": ", value, b"\r\n"
        if not run.keep_alive:
            pieces.append(b"connection: close\r\n")
        pieces += b"content-length: %d\r\n\r\n" % len(reply.body), reply.body
        self.transport.write(b"".join(pieces))
        run.response_complete = True
        if not run.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        run, self.reading = self.reading, None
        if run is not None:
            # The caller left within the body.
            run.seen.status = CLIENT_GONE
            self.runs.count(run.seen, run.began_s)
        super().connection_lost(exc)
