"""What stands for one request on a connection while it is answered."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from starlette.types import Scope
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from gateway.api.connection.fast_run import PlainRun
from gateway.api.connection.framing import Head
from gateway.api.middleware.metering import ENDPOINTS
from gateway.telemetry.observation import Observation

_LOGGER = logging.getLogger("uvicorn.error")


class Flow(FlowControl):
    """
    uvicorn's flow control.

    Attributes:
        held: Nothing is read, whoever asks for more: a later request waits already.
    """

    held = False

    def resume_reading(self) -> None:
        """Read on, unless it is held."""
        if not self.held:
            super().resume_reading()

    def hold(self) -> None:
        """Read no more until `let_go`."""
        self.held = True
        self.pause_reading()

    def let_go(self) -> None:
        """Read on."""
        self.held = False
        self.resume_reading()


class PlainExchange:
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


class AppCycle(RequestResponseCycle):
    """uvicorn's cycle, which says `Connection: close` where much of the body will not be read."""

    def __init__(self, *, is_last: Callable[[], bool], **cycle: Any) -> None:
        """
        Args:
            is_last: Whether the connection will end behind an answer that begins now.
            cycle: As of uvicorn's.
        """
        super().__init__(**cycle)
        self._is_last = is_last

    async def send(self, message: ASGISendEvent) -> None:
        """Send a part of the answer."""
        last = not self.response_started and self.keep_alive and self._is_last()
        if last:
            self.keep_alive = False
        await super().send(message)
        if last:
            # uvicorn would close it behind the answer, and what is on its way would reset it.
            self.keep_alive = True


def app_cycle(
    scope: Scope,
    head: Head,
    transport: asyncio.Transport,
    flow: Flow,
    *,
    default_headers: list[tuple[bytes, bytes]],
    keep_alive: bool,
    on_response: Callable[[], None],
    is_last: Callable[[], bool],
) -> AppCycle:
    """Make uvicorn's cycle for a request that the app answers."""
    return AppCycle(
        is_last=is_last,
        scope=scope,
        transport=transport,
        flow=flow,
        logger=_LOGGER,
        access_logger=_LOGGER,
        access_log=False,
        default_headers=default_headers,
        message_event=asyncio.Event(),
        expect_100_continue=head.expects_continue,
        keep_alive=keep_alive,
        on_response=on_response,
    )
