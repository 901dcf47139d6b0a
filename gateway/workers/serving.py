"""
`gateway serve --workers N`: the parent's life, and a worker's.

The parent opens what there must be one of, has its workers serve, and on SIGTERM closes in order:
the door first, then the workers with what they have admitted, then Triton.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import structlog

from gateway.access_opening import open_keyring, warn_while_open
from gateway.app import create_app
from gateway.background import log_fault, run_in_background
from gateway.control import Control, open_control, open_registry, open_store
from gateway.metrics.opening import Metrics, open_metrics
from gateway.registry.lifecycle import Lifecycle
from gateway.registry.opening import open_registration
from gateway.registry.registry import Registry
from gateway.registry.versions import Catalog, ModelVersion
from gateway.server import serve
from gateway.settings import Settings
from gateway.store.database import Database
from gateway.telemetry.logging import configure_logging
from gateway.triton.embedded_replica import EmbeddedReplica
from gateway.triton.endpoint import TritonEndpoint
from gateway.triton.monitor import Monitor
from gateway.triton.replicas import Replica
from gateway.triton.shared_memory import sweep
from gateway.workers.hub import Hub
from gateway.workers.parent import Parent
from gateway.workers.pool import WorkersFailed

log = structlog.get_logger(__name__)

# On top of the workers' own grace: closing connections, storing what was counted.
_EXIT_MARGIN_S = 5.0


async def serve_with_workers(
    settings: Settings, listener: socket.socket, *, demo: bool, on_started: Callable[[], None]
) -> None:
    """
    Serve by several processes until SIGTERM or SIGINT.

    Args:
        settings: Of all of them together.
        listener: A bound socket.
        demo: Load the demo model if this gateway has never had a model.
        on_started: Called once every worker answers and what should be loaded at start is loaded.

    Raises:
        WorkersFailed: They cannot run here; the first of them has said why.
        Whatever opening the parent's services raises.
    """
    hub = Hub(settings, listener)
    stop = asyncio.Event()
    opening = asyncio.current_task()
    opened = False

    def stop_by(number: int) -> None:
        log.info("stopping", signal=signal.Signals(number).name)
        if stop.is_set():
            # A second signal does not wait for requests.
            hub.pool.signal(signal.SIGTERM)
        elif not opened and opening is not None:
            opening.cancel()
        stop.set()

    def give_up(_failed: object) -> None:
        if not opened and opening is not None:
            opening.cancel()

    hub.pool.failed.add_done_callback(give_up)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop_by, number)
    sweep()
    try:
        # Starting an interpreter takes longer than starting Triton: side by side.
        hub.pool.start()
        async with _open_parent(settings, hub, demo=demo):
            opened = True
            try:
                await _until_stop(hub, stop, on_started)
            finally:
                hub.reception.close()
                await hub.pool.stop(settings.shutdown_grace_s + _EXIT_MARGIN_S)
    except asyncio.CancelledError:
        if hub.pool.failed.done() and not stop.is_set():
            raise WorkersFailed(hub.pool.failed.result()) from None
        if not stop.is_set():
            raise
    finally:
        await hub.pool.stop(0)


async def _until_stop(hub: Hub, stop: asyncio.Event, on_started: Callable[[], None]) -> None:
    stopping = asyncio.create_task(stop.wait())
    ready = asyncio.create_task(hub.pool.all_ready())
    try:
        await asyncio.wait([stopping, ready], return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            ready.result()
            on_started()
            either: list[asyncio.Future[Any]] = [stopping, hub.pool.failed]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if hub.pool.failed.done():
                await hub.pool.all_ready()
    finally:
        stopping.cancel()
        ready.cancel()


@contextlib.asynccontextmanager
async def _open_parent(settings: Settings, hub: Hub, *, demo: bool) -> AsyncIterator[None]:
    """Open what there must be one of, and let the hub answer from it."""
    async with contextlib.AsyncExitStack() as stack:
        repository = settings.model_repository.resolve()
        database: Database = await stack.enter_async_context(open_store(settings))
        registry = await open_registry(settings, database, partial(_Announced, hub))
        keyring = await open_keyring(settings, database, registry)
        run_in_background(stack, partial(warn_while_open, settings, keyring))
        # It registers nothing: this settles what a crash left half done.
        await stack.enter_async_context(open_registration(settings, repository, database, registry))
        control: Control = await stack.enter_async_context(
            open_control(
                settings,
                registry,
                demo=demo,
                shared_bytes=_none_shared,
                lifecycle_kind=partial(_AnnouncingLifecycle, hub),
                listener_kind=partial(_AnnouncedReplica, hub),
            )
        )
        metrics: Metrics = await stack.enter_async_context(
            open_metrics(settings, database, registry, control.replicas, control.reconciler)
        )
        for work in metrics.background():
            run_in_background(stack, work)
        hub.open(registry, control, metrics)
        yield


class _Announced(Registry):
    """A registry whose every refresh ends when all workers know what it brought."""

    def __init__(self, hub: Hub, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]  # as `Registry` is made
        self._hub = hub

    async def refresh(self) -> Catalog:
        """Refresh; see `Registry.refresh`."""
        await super().refresh()
        await self._hub.all_know()
        return self.catalog


class _AnnouncingLifecycle(Lifecycle):
    """Loads and unloads, and tells when a first load has come to its end."""

    def __init__(self, hub: Hub, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]  # as `Lifecycle` is made
        self._hub = hub

    async def load(self, name: str, version: int | None = None, *, actor: str) -> ModelVersion:
        """Load; see `Lifecycle.load`."""
        try:
            return await super().load(name, version, actor=actor)
        finally:
            self._hub.announce()


class _AnnouncedReplica(EmbeddedReplica):
    """The embedded Triton, whose news the workers hear first."""

    def __init__(self, hub: Hub, monitor: Monitor) -> None:
        super().__init__(monitor)
        self._hub = hub
        self._last: asyncio.Task[None] | None = None

    def attach(self, endpoint: TritonEndpoint) -> None:
        """Have the monitor watch the started server."""
        self._hub.embedded = endpoint
        super().attach(endpoint)

    async def came_up(self, endpoint: TritonEndpoint) -> None:
        """Hear that a new, empty server answers."""
        self._hub.embedded = endpoint
        self._hub.tell("came_up", endpoint)
        if self._last is not None:
            await asyncio.wait([self._last])
        await super().came_up(endpoint)

    def went_down(self, reason: str) -> None:
        """Hear that the server ended."""
        self._hub.embedded = None
        self._hub.tell("went_down")
        self._after_reports(partial(super().went_down, reason))

    def stub_lost(self, model: str, version: int, detail: str) -> None:
        """Hear that the process of an instance ended."""
        self._after_reports(partial(super().stub_lost, model, version, detail))

    def _after_reports(self, hear: Callable[[], None]) -> None:
        """Strikes depend on what the workers had in flight, and on who answered them last."""
        before = self._last

        async def wait_and_hear() -> None:
            if before is not None:
                await asyncio.wait([before])
            await self._hub.hear()
            hear()

        self._last = asyncio.create_task(wait_and_hear())
        self._last.add_done_callback(log_fault)


def _none_shared(_replica: Replica) -> int:
    """The parent sends no images."""
    return 0


async def serve_as_worker(number: int, wire: socket.socket, door: socket.socket) -> None:
    """
    Be worker `number`, until the parent ends it or is gone.

    Args:
        number: From 1.
        wire, door: This worker's ends of the two socket pairs.

    Raises:
        Whatever opening the worker's services raises.
    """
    parent = await Parent.join(number, wire, door)
    configure_logging(parent.settings.log_level, parent.settings.log_format, worker=number)
    app = create_app(parent.settings, parent=parent)
    await serve(app, parent.settings, parent, on_started=lambda: parent.link.tell("ready"))
