"""
What lives as long as the app: opened in order, closed in reverse. Only this module and `app.py`
wire.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any

import structlog

from gateway.errors import StoreUnavailable
from gateway.inference.admission import Admission
from gateway.inference.images import ImageLimits
from gateway.inference.run import Runner
from gateway.metrics.opening import Metrics, open_metrics
from gateway.registry.aliases import Aliases
from gateway.registry.artifacts import Artifacts
from gateway.registry.desired import DesiredState
from gateway.registry.lifecycle import Lifecycle
from gateway.registry.opening import open_registration
from gateway.registry.registration import Registration
from gateway.registry.registry import Registry
from gateway.registry.sources import REPOSITORY, ModelsFolder, adopt_repository
from gateway.rollouts.commands import Rollouts
from gateway.rollouts.opening import open_rollouts
from gateway.settings import Settings
from gateway.store.database import Database, open_database
from gateway.store.versions import VersionStore
from gateway.telemetry.tracing import triton_arguments
from gateway.triton.discovery import Discovery, parse_triton_url
from gateway.triton.embedded import EmbeddedOptions, EmbeddedTriton
from gateway.triton.embedded_replica import EmbeddedReplica
from gateway.triton.monitor import Monitor
from gateway.triton.reconciler import Reconciler
from gateway.triton.replicas import Replica, ReplicaSet, Served
from gateway.triton.slots import PAGE_BYTES

log = structlog.get_logger(__name__)

_DATABASE_CHECK_S = 1.0
DEMO_MODEL = "digits"


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one health check."""

    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Services:
    """The open services of one gateway."""

    settings: Settings
    database: Database
    registry: Registry
    replicas: ReplicaSet
    reconciler: Reconciler
    lifecycle: Lifecycle
    admission: Admission
    runner: Runner
    models_folder: ModelsFolder | None
    registration: Registration
    rollouts: Rollouts
    aliases: Aliases
    metrics: Metrics

    async def ready(self) -> dict[str, Check]:
        """Check that a request would be answered: not stopping, a replica, the database."""
        live, known = len(self.replicas.live()), len(self.replicas.replicas)
        return {
            "accepting": Check(
                not self.admission.draining, "draining" if self.admission.draining else "accepting"
            ),
            "replicas": Check(live > 0, f"{live} of {known} can be reached"),
            "database": await self._database_check(),
        }

    def started(self) -> dict[str, Check]:
        """Check that every version that should be loaded is ready, or has been given up for now."""
        missing = [
            f"{name}/{version}"
            for name, model in self.registry.catalog.models.items()
            for version in model.desired - model.quarantined.keys()
            for replica in self.replicas.live()
            if (name, version) not in replica.ready
            and self.reconciler.failure(replica, name, version) is None
        ]
        live = len(self.replicas.live())
        return {
            "replicas": Check(live > 0, f"{live} can be reached"),
            "loads": Check(not missing, "waiting for " + ", ".join(missing) if missing else "done"),
        }

    def settled(self) -> bool:
        """Whether nothing that should be loaded is still to come."""
        wanted = any(model.desired for model in self.registry.catalog.models.values())
        return not wanted or all(check.ok for check in self.started().values())

    async def _database_check(self) -> Check:
        try:
            async with asyncio.timeout(_DATABASE_CHECK_S):
                await self.registry.store.generation()
        except (StoreUnavailable, TimeoutError):
            return Check(ok=False, detail="cannot be reached")
        return Check(ok=True, detail="answers")


@contextlib.asynccontextmanager
async def open_services(settings: Settings, *, demo: bool = False) -> AsyncIterator[Services]:
    """
    Open everything; close it in reverse when the block ends.

    Args:
        settings: The settings of this process.
        demo: Load the demo model if this gateway has never had a model.

    Raises:
        StoreUnavailable: The database cannot be opened.
        EmbeddedError: The embedded Triton cannot run here; the text says how to mend it.
        TritonUrlInvalid: TRITON_URLS cannot be read.
    """
    async with contextlib.AsyncExitStack() as stack:
        urls = [parse_triton_url(text) for text in settings.triton_urls]
        repository = settings.model_repository.resolve()
        repository.mkdir(parents=True, exist_ok=True)
        settings.data_dir.mkdir(parents=True, exist_ok=True)

        database = await open_database(settings.resolved_database_url)
        stack.push_async_callback(database.close)
        # With a folder of models, the folder is what is served; the repository only holds the
        # copies.
        hidden = (REPOSITORY,) if settings.models_dir else ()
        registry = Registry(VersionStore(database), hidden_sources=hidden)
        await registry.refresh()

        replicas = ReplicaSet()
        stack.push_async_callback(replicas.close)
        desired = DesiredState(registry)
        artifacts = Artifacts(repository, registry)
        reconciler = Reconciler(
            desired.models,
            load_timeout_s=settings.load_timeout_s,
            refusal=artifacts.refusal,
        )

        async def quarantine(served: Served, reason: str) -> None:
            await registry.store.quarantine(*served, reason)
            await registry.refresh()

        monitor = Monitor(
            replicas,
            reconciler,
            probes=desired.probes,
            quarantine=quarantine,
            poll_s=settings.replica_poll_s,
            probe_interval_s=settings.probe_interval_s,
            shared_bytes=lambda replica: _shared_bytes(settings, replica),
        )
        lifecycle = Lifecycle(
            registry,
            replicas,
            reconciler,
            timeout_s=settings.load_timeout_s,
            artifacts=artifacts,
        )
        models_folder = None
        registration = await stack.enter_async_context(
            open_registration(settings, repository, database, registry)
        )
        if settings.models_dir is not None:
            models_folder = ModelsFolder(
                settings.models_dir, repository, registry, lifecycle, replicas
            )
            await models_folder.sync()
        else:
            await _adopt(registry, settings, demo=demo)

        metrics = await stack.enter_async_context(
            open_metrics(settings, database, registry, replicas, reconciler)
        )
        stack.push_async_callback(monitor.stop)
        if urls:
            discovery = Discovery(urls, monitor, settings.triton_admin_key)
            await discovery.refresh()
            _background(stack, discovery.follow())
        else:
            await _start_embedded(stack, settings, monitor)

        rollouts = open_rollouts(settings, database, registry, lifecycle)
        admission = Admission(settings.max_concurrent_runs, settings.max_waiting_runs)
        runner = Runner(
            lambda: registry.catalog,
            replicas,
            admission,
            limits=ImageLimits(pixels=settings.max_image_pixels),
            decode_threads=settings.decode_threads,
            timeout_s=settings.request_timeout_s,
            loading=lifecycle.loading,
            trials=rollouts.trials,
            challenger_timeout_s=settings.challenger_timeout_s,
        )
        stack.callback(runner.close)
        await stack.enter_async_context(rollouts.running(runner.ask_challenger, runner.ask_version))
        _background(stack, registry.follow(settings.catalog_poll_s))
        for work in metrics.background():
            _background(stack, work)
        if models_folder is not None:
            _background(stack, models_folder.follow())
        yield Services(
            settings=settings,
            database=database,
            registry=registry,
            replicas=replicas,
            reconciler=reconciler,
            lifecycle=lifecycle,
            admission=admission,
            runner=runner,
            models_folder=models_folder,
            registration=registration,
            rollouts=rollouts.commands,
            metrics=metrics,
            aliases=Aliases(registry, registration.store, lifecycle),
        )


def _shared_bytes(settings: Settings, replica: Replica) -> int:
    """How much memory to share with a replica."""
    if settings.shared_memory == "off":
        return 0
    wanted = settings.shared_memory == "on" or replica.client.endpoint.on_this_host
    return settings.shared_memory_bytes // PAGE_BYTES * PAGE_BYTES if wanted else 0


async def _adopt(registry: Registry, settings: Settings, *, demo: bool) -> None:
    first_start = not registry.catalog.models
    adopted = await adopt_repository(registry, settings.model_repository.resolve())
    if demo and first_start and DEMO_MODEL in adopted:
        champion = registry.catalog.model(DEMO_MODEL).champion.version
        await registry.store.set_desired(DEMO_MODEL, add={champion}, actor="gateway")
        await registry.refresh()


async def _start_embedded(
    stack: contextlib.AsyncExitStack, settings: Settings, monitor: Monitor
) -> None:
    listener = EmbeddedReplica(monitor)
    triton = EmbeddedTriton(
        EmbeddedOptions(
            data_dir=settings.data_dir.resolve(),
            repository=settings.model_repository.resolve(),
            extra_arguments=triton_arguments(settings.otel_exporter_otlp_endpoint),
        ),
        listener,
    )
    # Nothing is under way in it by then: requests were drained before the stack is closed.
    stack.push_async_callback(triton.stop, idle=True)
    listener.attach(await triton.start())
    stack.push_async_callback(listener.close)


def _background(stack: contextlib.AsyncExitStack, work: Coroutine[Any, Any, None]) -> None:
    """Run `work` until the stack closes; if it ends by itself, that is a fault and is logged."""
    task = asyncio.create_task(work)

    def ended(done: asyncio.Task[None]) -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            log.error("background_task_failed", exc_info=error)

    async def stop() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    task.add_done_callback(ended)
    stack.push_async_callback(stop)
