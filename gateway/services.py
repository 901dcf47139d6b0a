"""
What lives as long as the app: opened in order, closed in reverse. Only this module, `control.py`
and `app.py` wire.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

from prometheus_client import CollectorRegistry

from gateway.access.keyring import Keyring
from gateway.access_opening import open_keyring, warn_while_open
from gateway.background import run_in_background
from gateway.control import Folder, open_control, open_registry, open_store, shared_bytes
from gateway.errors import StoreUnavailable
from gateway.inference.admission import Admission
from gateway.inference.choice import VersionChoice
from gateway.inference.images.decoder import Decoder
from gateway.inference.images.decoding import ImageLimits
from gateway.inference.rollout import RolloutAnswers
from gateway.inference.run import Runner
from gateway.metrics.opening import Metrics, open_metrics
from gateway.registry.aliases import Aliases
from gateway.registry.lifecycle import Lifecycle
from gateway.registry.opening import open_registration
from gateway.registry.registration import Registration
from gateway.registry.registry import Registry
from gateway.rollouts.control.commands import Rollouts
from gateway.rollouts.control.opening import open_rollouts
from gateway.settings import Settings
from gateway.siblings import Alone, Scraped, Siblings
from gateway.store.database import Database
from gateway.triton.reconciler import Reconciler
from gateway.triton.replicas import ReplicaSet
from gateway.triton.shared_memory import sweep
from gateway.workers.parent import Counting, Parent

_DATABASE_CHECK_S = 1.0


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
    models_folder: Folder | None
    registration: Registration
    rollouts: Rollouts
    aliases: Aliases
    metrics: Metrics
    siblings: Siblings
    keyring: Keyring

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

    async def flush_metrics(self) -> None:
        """
        Store what was counted before the call, by all processes of this gateway.

        Raises:
            StoreUnavailable: The database is away.
        """
        await asyncio.gather(self.metrics.writer.flush(), self.siblings.flush())

    async def scrape(self) -> CollectorRegistry:
        """Read what Prometheus is shown, of all processes of this gateway together."""
        families = await self.siblings.scrape()
        if families is None:
            await self.metrics.refresh(self.replicas)
            return self.metrics.instruments.registry
        shown = CollectorRegistry()
        shown.register(Scraped(families))
        return shown

    async def _database_check(self) -> Check:
        try:
            async with asyncio.timeout(_DATABASE_CHECK_S):
                await self.registry.store.generation()
        except (StoreUnavailable, TimeoutError):
            return Check(ok=False, detail="cannot be reached")
        return Check(ok=True, detail="answers")


@contextlib.asynccontextmanager
async def open_services(
    settings: Settings, *, demo: bool = False, parent: Parent | None = None
) -> AsyncIterator[Services]:
    """
    Open everything; close it in reverse when the block ends.

    Args:
        settings: The settings of this process.
        demo: Load the demo model if this gateway has never had a model.
        parent: Of one of several worker processes; it owns what there must be one of.

    Raises:
        StoreUnavailable: The database cannot be opened.
        NotSafe: Others could do everything here; the text says how to go on.
        EmbeddedError: The embedded Triton cannot run here; the text says how to mend it.
        TritonUrlInvalid: TRITON_URLS cannot be read.
    """
    sweep()
    async with contextlib.AsyncExitStack() as stack:
        repository = settings.model_repository.resolve()
        database = await stack.enter_async_context(open_store(settings))
        registry = await open_registry(settings, database)
        keyring = await open_keyring(settings, database, registry)
        registration = await stack.enter_async_context(
            open_registration(
                settings, repository, database, registry, places=parent.places if parent else None
            )
        )
        control = await stack.enter_async_context(
            parent.open_control(settings, registry)
            if parent is not None
            else open_control(
                settings,
                registry,
                demo=demo,
                shared_bytes=lambda replica: shared_bytes(settings, replica),
            )
        )
        siblings: Siblings = parent or Alone()
        replicas, lifecycle = control.replicas, control.lifecycle
        metrics = await stack.enter_async_context(
            open_metrics(settings, database, registry, replicas, control.reconciler)
        )
        rollouts = open_rollouts(settings, database, registry, lifecycle, siblings)
        admission = Admission(settings.max_concurrent_runs, settings.max_waiting_runs)
        decoder = Decoder(
            ImageLimits(pixels=settings.max_image_pixels),
            threads=settings.decode_threads,
            leave_to_triton=settings.triton_decodes,
        )
        stack.callback(decoder.close)
        answers = RolloutAnswers(
            lambda: registry.catalog,
            replicas,
            decoder,
            rollouts.trials,
            challenger_timeout_s=settings.challenger_timeout_s,
        )
        runner = Runner(
            VersionChoice(lambda: registry.catalog, replicas, loading=lifecycle.loading),
            replicas,
            admission,
            decoder,
            rollouts.trials,
            answers,
            timeout_s=settings.request_timeout_s,
        )
        await stack.enter_async_context(
            rollouts.running(answers.ask_challenger, runner.ask_version)
        )
        for work in metrics.background(alone=parent is None):
            run_in_background(stack, work)
        if parent is None:
            run_in_background(stack, partial(warn_while_open, settings, keyring))
        if parent is not None:
            parent.attach(
                Counting(
                    flush=metrics.writer.try_flush,
                    shown=metrics.own,
                    recall=rollouts.commands.recall,
                    every_s=settings.metrics_flush_interval_s,
                )
            )
        yield Services(
            settings=settings,
            database=database,
            registry=registry,
            replicas=replicas,
            reconciler=control.reconciler,
            lifecycle=lifecycle,
            admission=admission,
            runner=runner,
            models_folder=control.models_folder,
            registration=registration,
            rollouts=rollouts.commands,
            metrics=metrics,
            aliases=Aliases(registry, registration.store, lifecycle),
            siblings=siblings,
            keyring=keyring,
        )
