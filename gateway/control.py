"""
What brings models into Tritons and keeps them there: the embedded server or the replicas that were
named, the monitor, the reconciler, load and unload, and where models come from at start.

A gateway of one process opens this beside what answers requests; of several, the parent alone.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from gateway.background import run_in_background
from gateway.demo import DEMO_MODEL, publish_demo
from gateway.registry.artifacts import Artifacts
from gateway.registry.desired import DesiredState
from gateway.registry.lifecycle import Lifecycle
from gateway.registry.registry import Registry
from gateway.registry.sources import REPOSITORY, ModelsFolder, adopt_repository
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

_MARGIN_S = 5.0


class Folder(Protocol):
    """A folder of models."""

    async def sync(self) -> None:
        """Publish what is new or changed in it."""


@dataclass(frozen=True, slots=True)
class Control:
    """The open services; `models_folder` is None without MODELS_DIR."""

    replicas: ReplicaSet
    reconciler: Reconciler
    lifecycle: Lifecycle
    models_folder: Folder | None


@contextlib.asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[Database]:
    """
    Make the folders that are written to, and open the database.

    Raises:
        StoreUnavailable: The database cannot be opened.
    """
    settings.model_repository.resolve().mkdir(parents=True, exist_ok=True)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = await open_database(settings.resolved_database_url)
    try:
        yield database
    finally:
        await database.close()


async def open_registry(
    settings: Settings, database: Database, kind: Callable[..., Registry] = Registry
) -> Registry:
    """
    Read the registry for the first time.

    Raises:
        StoreUnavailable: The database cannot be read.
    """
    # With a folder of models, the folder is what is served; the repository only holds the copies.
    hidden = (REPOSITORY,) if settings.models_dir else ()
    registry = kind(VersionStore(database), hidden_sources=hidden)
    await registry.refresh()
    return registry


@contextlib.asynccontextmanager
async def open_control(
    settings: Settings,
    registry: Registry,
    *,
    demo: bool,
    shared_bytes: Callable[[Replica], int],
    lifecycle_kind: Callable[..., Lifecycle] = Lifecycle,
    listener_kind: Callable[[Monitor], EmbeddedReplica] = EmbeddedReplica,
) -> AsyncIterator[Control]:
    """
    Take in what is there at start, then watch replicas and follow the database and the folder.

    Args:
        settings: Of this process.
        registry: Whose models.
        demo: Load the demo model if this gateway has never had a model.
        shared_bytes: How much memory to share with a replica.
        lifecycle_kind: What loads and unloads.
        listener_kind: Makes what hears the news of the embedded Triton.

    Raises:
        EmbeddedError: The embedded Triton cannot run here; the text says how to mend it.
        TritonUrlInvalid: TRITON_URLS cannot be read.
    """
    async with contextlib.AsyncExitStack() as stack:
        urls = [parse_triton_url(text) for text in settings.triton_urls]
        repository = settings.model_repository.resolve()
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
            shared_bytes=shared_bytes,
        )
        lifecycle = lifecycle_kind(
            registry,
            replicas,
            reconciler,
            timeout_s=settings.load_timeout_s,
            artifacts=artifacts,
        )
        models_folder = None
        if settings.models_dir is not None:
            models_folder = ModelsFolder(
                settings.models_dir,
                repository,
                registry,
                lifecycle,
                replicas,
                keep_graph=settings.keep_graph,
            )
            await models_folder.sync()
        else:
            await _adopt(registry, settings, demo=demo)
        stack.push_async_callback(monitor.stop)
        if urls:
            discovery = Discovery(urls, monitor, settings.triton_admin_key)
            await discovery.refresh()
            run_in_background(stack, discovery.follow)
        else:
            await _start_embedded(stack, settings, listener_kind(monitor))
        run_in_background(stack, partial(registry.follow, settings.catalog_poll_s))
        if models_folder is not None:
            run_in_background(stack, models_folder.follow)
        yield Control(replicas, reconciler, lifecycle, models_folder)


def shared_bytes(settings: Settings, replica: Replica) -> int:
    """How much memory to share with a replica, by the settings."""
    if settings.shared_memory == "off":
        return 0
    wanted = settings.shared_memory == "on" or replica.client.endpoint.on_this_host
    return settings.shared_memory_bytes // PAGE_BYTES * PAGE_BYTES if wanted else 0


async def _adopt(registry: Registry, settings: Settings, *, demo: bool) -> None:
    repository = settings.model_repository.resolve()
    first_start = not registry.catalog.models
    if demo and (first_start or DEMO_MODEL in registry.catalog.models):
        await asyncio.to_thread(publish_demo, repository)
    adopted = await adopt_repository(registry, repository)
    if demo and first_start and DEMO_MODEL in adopted:
        champion = registry.catalog.model(DEMO_MODEL).champion.version
        await registry.store.set_desired(DEMO_MODEL, add={champion}, actor="gateway")
        await registry.refresh()


async def _start_embedded(
    stack: contextlib.AsyncExitStack, settings: Settings, listener: EmbeddedReplica
) -> None:
    triton = EmbeddedTriton(
        EmbeddedOptions(
            data_dir=settings.data_dir.resolve(),
            repository=settings.model_repository.resolve(),
            # By then nobody waits for what it was asked before its successor came.
            replaced_s=settings.request_timeout_s + _MARGIN_S,
            extra_arguments=triton_arguments(settings.otel_exporter_otlp_endpoint),
        ),
        listener,
    )
    # Nothing is under way in it by then: requests were drained before the stack is closed.
    stack.push_async_callback(triton.stop, idle=True)
    listener.attach(await triton.start())
    stack.push_async_callback(listener.close)
