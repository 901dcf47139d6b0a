"""
The HTTP server: uvicorn, bound to our socket and our signals.

The socket is bound before anything is opened, so that a taken port is one clear line and not a
Triton that was started for nothing. SIGTERM and SIGINT end it in order: readiness falls at once,
admitted requests finish within the grace period, and the exit code is 0.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Protocol, cast

import structlog
import uvicorn
from fastapi import FastAPI

from gateway.api.connection.fast_run import FastRuns
from gateway.api.connection.keeper import ConnectionLimits, Keeper, Kept
from gateway.api.connection.protocol import http_protocol
from gateway.grpc_api.server import serving_grpc
from gateway.services import Services
from gateway.settings import Settings
from gateway.system.allocator import leave_what_stays
from gateway.system.descriptors import room_for_connections
from gateway.tls import Certificates, ServerContext, following, read_certificates

log = structlog.get_logger(__name__)

# uvicorn ticks every 0.1 s.
_TICKS_PER_S = 10
_START_PATIENCE_S = 15.0
_START_LOOK_S = 0.02


class ConnectionSource(Protocol):
    """
    Where a worker's connections come from: it has no listener of its own.

    Attributes:
        worker: The number of this process.
    """

    worker: int

    def open(
        self,
        protocol: Callable[[], asyncio.Protocol],
        count: Callable[[], int],
        encryption: Mapping[str, Any],
    ) -> None:
        """
        Take connections from now on.

        Args:
            protocol: Makes the protocol of one connection.
            count: Counts the connections that are open.
            encryption: What the event loop is told about TLS.
        """

    def close(self) -> None:
        """Take no more."""

    async def ended(self) -> None:
        """Return when no connection can come any more, because the source is gone."""


async def serve(
    app: FastAPI,
    settings: Settings,
    listener: socket.socket | ConnectionSource,
    *,
    on_started: Callable[[], None],
) -> None:
    """
    Open the app's services and serve until SIGTERM or SIGINT.

    Args:
        app: The app to serve.
        settings: For the grace period.
        listener: A bound socket; or, in a worker, where its connections come from.
        on_started: Called once the app answers and what should be loaded at start is loaded, or
            some seconds later if that takes longer.

    Raises:
        TlsUnusable: The certificate of the settings cannot be used.
        Whatever opening the app's services raises.
    """
    source = None if isinstance(listener, socket.socket) else listener
    runs = FastRuns(
        app, max_body_bytes=settings.max_body_bytes, worker=source.worker if source else None
    )
    limits = _limits(settings)
    keeper = Keeper(limits)
    certificates = read_certificates(settings)
    encryption = _encryption(certificates, limits)
    config = uvicorn.Config(
        app,
        http=http_protocol(runs, keeper),
        ws="none",
        loop="uvloop",
        # Ours to open, so that what goes wrong then reaches the caller as it is.
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=int(settings.shutdown_grace_s),
    )
    server = (
        _Server(config, keeper, on_started, encryption)
        if source is None
        else _WorkerServer(config, keeper, on_started, encryption, source)
    )
    opening = asyncio.current_task()
    stop = _Stop(app, server, settings, cancel=opening.cancel if opening is not None else _nothing)
    # `serve` would install handlers that raise the signal again at the end; ours only ask to stop.
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.hear, number)
    try:
        async with app.router.lifespan_context(app), following(certificates):
            server.services = app.state.services
            leave_what_stays()
            tracer = app.state.tracer
            async with serving_grpc(app.state.services, settings, tracer, certificates):
                sockets = [listener] if isinstance(listener, socket.socket) else []
                await server.serve(sockets=sockets)
    except asyncio.CancelledError:
        if not stop.heard:
            raise


def _nothing() -> None:
    pass


def _encryption(certificates: Certificates | None, limits: ConnectionLimits) -> dict[str, Any]:
    """Return what the event loop is told about TLS; nothing without a certificate."""
    if certificates is None:
        return {}
    context = ServerContext(certificates, most=limits.connections)
    return {"ssl": context, "ssl_handshake_timeout": limits.head_s}


def _limits(settings: Settings) -> ConnectionLimits:
    return ConnectionLimits(
        connections=min(settings.max_connections, room_for_connections()),
        head_s=settings.header_timeout_s,
        idle_s=settings.idle_timeout_s,
        body_bytes_per_s=settings.min_upload_bytes_per_s,
        body_memory_bytes=settings.body_memory_bytes,
    )


class _Stop:
    """
    What a signal does: first nobody should send more, then nobody can.

    After SIGTERM the server is not ready but answers as before for `drain_delay_s`, so that those
    who send requests can hear of it; every answer says that its connection ends. Then it takes
    nothing new, and finishes what it has. A second signal does not wait for requests.
    """

    def __init__(
        self, app: FastAPI, server: "_Server", settings: Settings, *, cancel: Callable[[], object]
    ) -> None:
        self._app = app
        self._server = server
        self._delay_s = settings.drain_delay_s
        self._cancel = cancel
        self.heard = False

    def hear(self, number: int) -> None:
        """Take a signal."""
        log.info("stopping", signal=signal.Signals(number).name)
        services: Services | None = getattr(self._app.state, "services", None)
        if not self._server.started and not self.heard:
            self._cancel()
        if self.heard or services is None or not self._server.started:
            self._server.force_exit = self._server.should_exit
            self._end(services)
        else:
            services.admission.leaving = True
            self._server.drain()
            delay_s = self._delay_s if number == signal.SIGTERM else 0.0
            asyncio.get_running_loop().call_later(delay_s, self._end, services)
        self.heard = True

    def _end(self, services: Services | None) -> None:
        if services is not None:
            services.admission.leaving = services.admission.draining = True
        self._server.should_exit = True


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers, which end the process by the signal itself."""

    services: Services

    def __init__(
        self,
        config: uvicorn.Config,
        keeper: Keeper,
        on_started: Callable[[], None],
        encryption: Mapping[str, Any],
    ) -> None:
        super().__init__(config)
        self._encryption = encryption
        self._keeper = keeper
        self._on_started = on_started
        self._announcing: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])
        loop, backlog = asyncio.get_running_loop(), self.config.backlog
        for listener in sockets or ():
            server = await loop.create_server(
                self._protocol, sock=listener, backlog=backlog, **self._encryption
            )
            self.servers.append(server)
        if self.started:
            self._announcing = asyncio.create_task(self._announce())

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS_PER_S == 0:
            self._keeper.end_late(self._kept, asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._announcing is not None:
            self._announcing.cancel()
        self.drain()
        await super().shutdown(sockets)

    def drain(self) -> None:
        """Let every connection go with its next answer."""
        self._keeper.drain(self._kept)

    @property
    def _kept(self) -> set[Kept]:
        # All are ours: `http_protocol` made them.
        return cast("set[Kept]", self.server_state.connections)

    def _protocol(self) -> asyncio.Protocol:
        # As uvicorn makes it.
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]  # of any
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made

    async def _announce(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_PATIENCE_S):
                # Several sources observe what is loaded; none of them announces "all".
                while not self.services.health.settled():  # noqa: ASYNC110
                    await asyncio.sleep(_START_LOOK_S)
        self._on_started()


class _WorkerServer(_Server):
    """The server of a worker: its connections are handed to it."""

    def __init__(
        self,
        config: uvicorn.Config,
        keeper: Keeper,
        on_started: Callable[[], None],
        encryption: Mapping[str, Any],
        source: ConnectionSource,
    ) -> None:
        super().__init__(config, keeper, on_started, encryption)
        self._source = source
        self._orphaned: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            count = partial(len, self.server_state.connections)
            self._source.open(self._protocol, count, self._encryption)
            self._orphaned = asyncio.create_task(self._stop_with_the_source())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._source.close()
        if self._orphaned is not None:
            self._orphaned.cancel()
        await super().shutdown(sockets)

    async def _stop_with_the_source(self) -> None:
        """End in order if nobody hands connections over any more."""
        await self._source.ended()
        self.should_exit = True
