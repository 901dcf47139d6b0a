"""Everything that counts: the recorder, its writer, Prometheus, the samples, the roll-up."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prometheus_client.core import Metric

from gateway.background.tasks import Work
from gateway.metrics.gauges import StateCollector, dropped_log_lines, lost_requests
from gateway.metrics.presence import Presence
from gateway.metrics.rollout_states import RolloutStates
from gateway.metrics.rollup import Retention, Rollup
from gateway.metrics.sampler import Sampler
from gateway.metrics.triton_metrics import TritonMetrics
from gateway.metrics.writer import MetricsWriter
from gateway.registry.registry import Registry
from gateway.registry.versions import Catalog
from gateway.settings import Settings
from gateway.store.database import Database
from gateway.store.metrics_writers import Gap, MetricsWriterStore
from gateway.store.request_metrics import RequestMetricsStore
from gateway.store.version_samples import VersionSampleStore
from gateway.telemetry.observation import Observation
from gateway.telemetry.prometheus import RequestInstruments
from gateway.telemetry.request_metrics import Recorder
from gateway.triton.embedded.stubs import StubWatch
from gateway.triton.instances import Stub
from gateway.triton.loads import LoadStates
from gateway.triton.replicas import ReplicaSet


@dataclass(frozen=True, slots=True)
class Metrics:
    """The open services that count."""

    enabled: bool
    recorder: Recorder
    writer: MetricsWriter
    presence: Presence
    writers: MetricsWriterStore
    rollouts: RolloutStates
    requests: RequestMetricsStore
    samples: VersionSampleStore
    instruments: RequestInstruments
    triton: TritonMetrics
    rollup: Rollup
    sampler: Sampler
    flush_interval_s: float

    def record(self, seen: Observation) -> None:
        """Count one answered request, in memory."""
        if self.enabled:
            self.recorder.record(seen)

    async def refresh(self, replicas: ReplicaSet) -> None:
        """Read what a scrape shows of the replicas and of the database; count what was noted."""
        self.recorder.settle()
        await asyncio.gather(self.triton.refresh(replicas), self.rollouts.refresh())

    async def gaps(self, start_s: float, end_s: float) -> Sequence[Gap]:
        """
        Read which counts are missing in [start_s, end_s).

        Raises:
            StoreUnavailable: The database is away.
        """
        silent_s = time.time() - 60 - 2 * self.flush_interval_s
        return await self.writers.gaps(start_s, end_s, silent_s=silent_s)

    def own(self) -> list[Metric]:
        """Show what this process has counted, without the state that all of a gateway share."""
        self.recorder.settle()
        return [*self.instruments.own(), lost_requests(self.recorder), dropped_log_lines()]

    def background(self, *, shared_work: bool) -> Iterator[Work]:
        """
        Yield what has to run for as long as the gateway does.

        Args:
            shared_work: Whether this process samples replicas and rolls up, which one process of a
                gateway does for all.
        """
        if self.enabled:
            yield partial(self.writer.follow, self.flush_interval_s)
            yield self.presence.follow
        if self.enabled and shared_work:
            yield self.sampler.follow
        if shared_work:
            yield self.rollup.follow


@contextlib.asynccontextmanager
async def open_metrics(
    settings: Settings,
    database: Database,
    registry: Registry,
    replicas: ReplicaSet,
    loads: LoadStates,
) -> AsyncIterator[Metrics]:
    """Open them. At the end of the block what was counted is stored; no request comes after."""
    names = _Names(registry)
    instruments = RequestInstruments()
    recorder = Recorder(names.known, max_cells=settings.metrics_held_rows, then=instruments.record)
    # Rows of this process, told from those of its predecessor and of other gateways.
    name = uuid.uuid4().hex[:8]
    requests, samples = RequestMetricsStore(database), VersionSampleStore(database)
    writers = MetricsWriterStore(database)
    writer = MetricsWriter(recorder, requests, name=name)
    interval_s = settings.metrics_flush_interval_s

    def keep_registered(catalog: Catalog) -> None:
        # Else what is noted of a version that goes would make its series anew.
        recorder.settle()
        instruments.keep_only(
            {(model.name, number) for model in catalog.models.values() for number in model.versions}
        )

    registry.on_change(keep_registered)
    instruments.add(
        StateCollector(lambda: registry.catalog, replicas, recorder, lambda: loads.load_times_s)
    )
    triton, rollouts = TritonMetrics(), RolloutStates(lambda: registry.catalog, database)
    instruments.add(triton)
    instruments.add(rollouts)
    metrics = Metrics(
        enabled=settings.metrics,
        recorder=recorder,
        writer=writer,
        writers=writers,
        presence=Presence(
            settings.data_dir.resolve() / "metrics", writers, writer, interval_s=interval_s
        ),
        rollouts=rollouts,
        requests=requests,
        samples=samples,
        instruments=instruments,
        triton=triton,
        rollup=Rollup(
            requests,
            samples,
            writers,
            Retention(
                settings.metrics_minutes_kept_s,
                settings.metrics_hours_kept_s,
                settings.metrics_days_kept_s,
            ),
        ),
        sampler=Sampler(
            replicas,
            samples,
            writer=name,
            load_times_s=lambda: loads.load_times_s,
            stubs=lambda: _stubs(settings.data_dir),
        ),
        flush_interval_s=interval_s,
    )
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(triton.close)
        if settings.metrics:
            await stack.enter_async_context(metrics.presence.shown())
        yield metrics


class _Names:
    """Which names may be labels: those of the catalog in force."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def known(self, model: str, version: int) -> tuple[str, int]:
        found = self._registry.catalog.models.get(model)
        if found is None:
            return "", 0
        return model, version if version in found.versions else 0


def _stubs(data_dir: Path) -> Iterator[Stub]:
    """Yield the embedded Triton's backend processes; none if there is no embedded Triton."""
    instances = data_dir.resolve() / "triton" / "instances"
    if instances.is_dir():
        for _presence, stub in StubWatch(instances).present():
            yield stub
