"""
The control plane: what brings models into Tritons and keeps them there.

`ControlPlane` says what the rest of a gateway needs of it. In a gateway of one process, and in the
parent of several, it is a `LocalControlPlane`: the embedded server or the replicas that were named,
the monitor, the reconciler, load and unload, and where models come from at start. In a worker it
reaches the parent's (`workers/child/control_plane.py`).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from gateway.background.tasks import run_in_background
from gateway.demo import DEMO_MODEL, publish_demo
from gateway.peers import NoPeers, Peers
from gateway.registry.adoption import adopt_repository
from gateway.registry.artifacts import Artifacts
from gateway.registry.desired import DesiredState, follow_names
from gateway.registry.lifecycle import Lifecycle, LifecycleObserver, LocalLifecycle
from gateway.registry.models_folder import ModelsFolder
from gateway.registry.registry import Registry
from gateway.registry.shared_replicas import SharedReplicas
from gateway.registry.versions import Catalog
from gateway.settings import Settings
from gateway.telemetry.tracing import triton_arguments
from gateway.triton.discovery import Discovery, parse_triton_url
from gateway.triton.embedded import EmbeddedOptions, EmbeddedTriton
from gateway.triton.embedded.replica import EmbeddedReplica, TritonListener
from gateway.triton.loads import LoadStates
from gateway.triton.monitor import Monitor, Repairs
from gateway.triton.reconciler import LoadObserver, Reconciler, Unobserved
from gateway.triton.replicas import Replica, ReplicaSet, Served
from gateway.triton.slots import PAGE_BYTES

_MARGIN_S = 5.0


class Folder(Protocol):
    """A folder of models."""

    async def sync(self, name: str | None = None) -> None:
        """Take in what is new, changed or gone in it: of one name, or of all."""


@dataclass(frozen=True, slots=True)
class Control:
    """An open control plane; `models_folder` is None without MODELS_DIR."""

    replicas: ReplicaSet
    loads: LoadStates
    repairs: Repairs
    lifecycle: Lifecycle
    models_folder: Folder | None


class ControlPlane(Protocol):
    """What a gateway process needs of whoever loads models."""

    @property
    def peers(self) -> Peers:
        """The other processes of this gateway."""

    @property
    def validations(self) -> AbstractAsyncContextManager[None]:
        """Held during a validation: it bounds how many run at once, all processes together."""

    @property
    def does_shared_work(self) -> bool:
        """Whether this process samples replicas and rolls stored metrics up, for all."""

    async def catalog_refreshed(self, catalog: Catalog) -> None:
        """Return when everybody who answers requests knows this process's catalog."""

    def open(self, settings: Settings, registry: Registry) -> AbstractAsyncContextManager[Control]:
        """Watch replicas, and load and unload, for the length of a block."""


class ControlObserver(LoadObserver, LifecycleObserver, Protocol):
    """Hears what a local control plane does."""

    async def catalog_refreshed(self, catalog: Catalog) -> None:
        """Return when everybody who answers requests knows the catalog."""

    def listener(self, replica: EmbeddedReplica) -> TritonListener:
        """Return who hears the news of the embedded Triton, and passes them on to `replica`."""


class _Alone(Unobserved):
    """The observer of a gateway of one process: there is nobody to tell."""

    async def catalog_refreshed(self, catalog: Catalog) -> None:
        """Return."""

    def load_settled(self) -> None:
        """Do nothing."""

    def listener(self, replica: EmbeddedReplica) -> TritonListener:
        """Return the replica itself."""
        return replica


class LocalControlPlane:
    """Loads models from this process."""

    def __init__(
        self,
        settings: Settings,
        *,
        demo: bool = False,
        shared_bytes: Callable[[Replica], int] | None = None,
        replicas: ReplicaSet | None = None,
        loads: LoadStates | None = None,
        observer: ControlObserver | None = None,
    ) -> None:
        """
        Args:
            settings: Of this process.
            demo: Load the demo model if this gateway has never had a model.
            shared_bytes: How much memory to share with a replica; by default as the settings say.
            replicas, loads: Where replicas and loads are recorded; by default records of its own.
            observer: Hears of every change.
        """
        self.peers: Peers = NoPeers()
        self.validations = asyncio.Semaphore(settings.max_validations)
        self.does_shared_work = True
        self._demo = demo
        self._shared_bytes = shared_bytes or partial(bytes_to_share, settings)
        self._replicas = ReplicaSet() if replicas is None else replicas
        self._loads = LoadStates() if loads is None else loads
        self._observer: ControlObserver = _Alone() if observer is None else observer

    async def catalog_refreshed(self, catalog: Catalog) -> None:
        """Wait for the observer."""
        await self._observer.catalog_refreshed(catalog)

    @contextlib.asynccontextmanager
    async def open(self, settings: Settings, registry: Registry) -> AsyncIterator[Control]:
        """
        Take in what is there at start, then watch replicas and follow the database and the folder.

        Raises:
            EmbeddedError: The embedded Triton cannot run here; the text says how to mend it.
            TritonUrlInvalid: TRITON_URLS cannot be read.
        """
        async with contextlib.AsyncExitStack() as stack:
            # Read first: a mistake in it is told before anything is started.
            urls = [parse_triton_url(text) for text in settings.triton_urls]
            repository = settings.model_repository.resolve()
            replicas, loads = self._replicas, self._loads
            stack.push_async_callback(replicas.close)
            follow_names(registry, replicas.names)
            desired = DesiredState(registry)
            artifacts = Artifacts(repository, registry)
            reconciler = Reconciler(
                desired.models,
                load_timeout_s=settings.load_timeout_s,
                refusal=artifacts.refusal,
                loads=loads,
                observer=self._observer,
                names=replicas.names,
                permission=SharedReplicas(registry) if urls else None,
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
                shared_bytes=self._shared_bytes,
            )
            lifecycle = LocalLifecycle(
                registry,
                replicas,
                reconciler,
                timeout_s=settings.load_timeout_s,
                artifacts=artifacts,
                observer=self._observer,
            )
            stack.push_async_callback(lifecycle.close)
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
                await _adopt(registry, settings, demo=self._demo)
            stack.push_async_callback(monitor.stop)
            if urls:
                discovery = Discovery(urls, monitor, settings.triton_admin_key)
                await discovery.refresh()
                run_in_background(stack, discovery.follow)
            else:
                listener = self._observer.listener(EmbeddedReplica(monitor))
                await _start_embedded(stack, settings, listener)
            run_in_background(stack, partial(registry.follow, settings.catalog_poll_s))
            if models_folder is not None:
                run_in_background(stack, models_folder.follow)
            yield Control(replicas, loads, reconciler, lifecycle, models_folder)


def bytes_to_share(settings: Settings, replica: Replica) -> int:
    """Return how much memory to share with a replica, by the settings."""
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
    stack: contextlib.AsyncExitStack, settings: Settings, listener: TritonListener
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
