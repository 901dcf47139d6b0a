"""
What lives as long as the app: opened in order, closed in reverse. `core.py` opens what every
process of a gateway has; this module adds what answers requests.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from gateway.access.callers import Caller
from gateway.access.keyring import Keyring
from gateway.access.limits import RateLimits
from gateway.background.tasks import run_in_background
from gateway.control_plane import ControlPlane, Folder, LocalControlPlane
from gateway.core import open_core
from gateway.health import HealthChecks
from gateway.inference.admission import Admission
from gateway.inference.asking import TensorAsker
from gateway.inference.choice import VersionChoice
from gateway.inference.decoder import Decoder
from gateway.inference.fair_queue import EVERYBODY, Share
from gateway.inference.images.decoding import ImageLimits
from gateway.inference.rollout import RolloutAnswers
from gateway.inference.run import Runner
from gateway.inference.tensors import TensorRunner
from gateway.metrics.gauges import RunGauges
from gateway.metrics.metrics import Metrics
from gateway.optimize.optimizer import Optimizer
from gateway.peers import Counts, Peers, Scraped
from gateway.registry.aliases import Aliases
from gateway.registry.lifecycle import Lifecycle
from gateway.registry.registration import Registration
from gateway.registry.registry import Registry
from gateway.rollouts.control.commands import Rollouts
from gateway.rollouts.control.running import open_rollouts
from gateway.settings import Settings
from gateway.store.audit import AuditStore
from gateway.store.database import Database
from gateway.store.keys import KeyStore
from gateway.triton.computing import computed
from gateway.triton.loads import LoadStates
from gateway.triton.replicas import ReplicaSet

if TYPE_CHECKING:
    from gateway.access.sign_in import SignIn


@dataclass(frozen=True, slots=True)
class Services:
    """The open services of one gateway."""

    settings: Settings
    database: Database
    registry: Registry
    replicas: ReplicaSet
    loads: LoadStates
    lifecycle: Lifecycle
    admission: Admission
    health: HealthChecks
    runner: Runner
    tensors: TensorRunner
    models_folder: Folder | None
    registration: Registration
    rollouts: Rollouts
    optimizer: Optimizer
    aliases: Aliases
    metrics: Metrics
    peers: Peers
    keyring: Keyring
    sign_in: "SignIn | None"
    keys: KeyStore
    limits: RateLimits
    audit: AuditStore

    def share_of(self, caller: Caller) -> Share:
        """Tell what a caller may have of the places for runs."""
        if not caller.id:
            return EVERYBODY
        return Share(caller.id, self.limits.in_flight(caller), caller.limits.batch)

    async def load(self, name: str, version: int | None, *, actor: str) -> None:
        """
        Load a version, by default the champion, on every replica; see `Lifecycle.load`. A file of
        MODELS_DIR may have been put there, changed or deleted a moment ago.
        """
        if self.models_folder is not None:
            await self.models_folder.sync(name)
        await self.lifecycle.load(name, version, actor=actor)

    async def flush_metrics(self) -> None:
        """
        Store what was counted before the call, by all processes of this gateway.

        Raises:
            StoreUnavailable: The database is away.
        """
        await asyncio.gather(self.metrics.writer.flush(), self.peers.flush())

    async def scrape(self) -> CollectorRegistry:
        """Read what Prometheus is shown, of all processes of this gateway together."""
        families = await self.peers.scrape()
        if families is None:
            await self.metrics.refresh(self.replicas)
            return self.metrics.instruments.registry
        shown = CollectorRegistry()
        shown.register(Scraped(families))
        return shown


@contextlib.asynccontextmanager
async def open_services(
    settings: Settings, *, plane: ControlPlane | None = None
) -> AsyncIterator[Services]:
    """
    Open everything; close it in reverse when the block ends.

    Args:
        settings: The settings of this process.
        plane: Who loads models; by default this process.

    Raises:
        StoreUnavailable: The database cannot be opened.
        NotSafe: Others could do everything here; the text says how to go on.
        EmbeddedError: The embedded Triton cannot run here; the text says how to mend it.
        TritonUrlInvalid: TRITON_URLS cannot be read.
    """
    plane = plane or LocalControlPlane(settings)
    peers = plane.peers
    async with contextlib.AsyncExitStack() as stack:
        core = await stack.enter_async_context(open_core(settings, plane))
        registry, control, metrics = core.registry, core.control, core.metrics
        if core.access.follow is not None:
            run_in_background(stack, core.access.follow)
        rollouts = open_rollouts(
            settings, core.database, registry, control.lifecycle, recall=peers.recall
        )
        admission = Admission(
            settings.max_concurrent_runs, settings.max_waiting_runs, settings.max_runs_beside_others
        )
        decoder = Decoder(
            ImageLimits(pixels=settings.max_image_pixels),
            threads=settings.decode_threads,
            leave_to_triton=settings.triton_decodes,
        )
        stack.callback(decoder.close)
        answers = RolloutAnswers(
            lambda: registry.catalog,
            control.replicas,
            decoder,
            rollouts.assignments,
            challenger_timeout_s=settings.challenger_timeout_s,
        )
        choice = VersionChoice(
            lambda: registry.catalog, control.replicas, loading=control.loads.first_loads
        )
        runner = Runner(
            choice,
            control.replicas,
            admission,
            decoder,
            rollouts.assignments,
            answers,
            record=rollouts.recorder.offer,
            timeout_s=settings.request_timeout_s,
        )
        tensors = TensorRunner(
            choice,
            lambda: registry.catalog,
            control.replicas,
            admission,
            TensorAsker(
                control.replicas,
                decoder,
                lambda chosen: registry.catalog.model(chosen.model).largest_batch(chosen),
                most_images=settings.max_batch_images,
            ),
            rollouts.assignments,
            timeout_s=settings.request_timeout_s,
            challenger_timeout_s=settings.challenger_timeout_s,
        )
        await stack.enter_async_context(
            rollouts.running(
                answers.ask_copy,
                runner.ask_version,
                read=partial(computed, control.replicas),
                busy=admission.uses_the_machine_up,
                models=lambda: registry.catalog.models,
            )
        )
        gauges = RunGauges(lambda: registry.catalog.models, admission.running, admission.queued)
        metrics.instruments.add(gauges)
        counts = Counts(
            flush=metrics.writer.try_flush,
            shown=lambda: [*metrics.own(), *gauges.collect()],
            recall=rollouts.commands.recall,
            every_s=settings.metrics_flush_interval_s,
        )
        stack.enter_context(peers.offering(counts))
        yield Services(
            settings=settings,
            database=core.database,
            registry=registry,
            replicas=control.replicas,
            loads=control.loads,
            lifecycle=control.lifecycle,
            admission=admission,
            health=HealthChecks(registry, control.replicas, control.loads, admission),
            runner=runner,
            tensors=tensors,
            models_folder=control.models_folder,
            registration=core.registration,
            rollouts=rollouts.commands,
            optimizer=Optimizer(
                registry,
                core.registration,
                rollouts.commands.evaluations,
                settings.model_repository,
                memory_bytes=settings.validation_memory_bytes,
                timeout_s=settings.optimize_timeout_s,
                max_image_pixels=settings.max_image_pixels,
            ),
            metrics=metrics,
            aliases=Aliases(registry, core.registration.store, control.lifecycle),
            peers=peers,
            keyring=core.access.keyring,
            sign_in=core.access.sign_in,
            keys=KeyStore(core.database),
            limits=RateLimits(part=1 / settings.workers),
            audit=AuditStore(core.database),
        )
