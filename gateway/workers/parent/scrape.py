"""One scrape of several processes: the workers' metrics and the parent's, added up."""

import asyncio

from prometheus_client.core import Metric

from gateway.metrics.metrics import Metrics
from gateway.registry.registry import Registry
from gateway.registry.versions import Catalog
from gateway.triton.replicas import ReplicaSet
from gateway.workers.parent.pool import WorkerPool
from gateway.workers.parent.reports import Reports
from gateway.workers.parent.totals import Totals
from gateway.workers.parent.worker import Worker
from gateway.workers.wire.messages import ReadMetrics

_COUNTED_WITHIN_S = 1.0


class ScrapedTotals:
    """The sum. What a worker had counted when it died stays in it."""

    def __init__(
        self,
        pool: WorkerPool,
        reports: Reports,
        metrics: Metrics,
        *,
        registry: Registry,
        replicas: ReplicaSet,
    ) -> None:
        self._pool = pool
        self._reports = reports
        self._metrics = metrics
        self._replicas = replicas
        self._dead = Totals()
        registry.on_change(self._keep_registered)
        # What is under way in it, is no more.
        pool.on_end(lambda worker: self._dead.add(f for f in worker.counted if f.type != "gauge"))

    async def read(self) -> list[Metric]:
        """Add up what every process has counted by now."""
        await asyncio.gather(
            self._ask(), self._reports.collect(), self._metrics.refresh(self._replicas)
        )
        parts = [list(self._metrics.instruments.registry.collect())]
        parts += [worker.counted for worker in self._pool]
        merged = await asyncio.to_thread(self._dead.merged_with, parts)
        return merged.families()

    def note(self, worker: Worker, families: list[Metric]) -> None:
        """Hear what a worker has counted."""
        worker.counted = families

    async def _ask(self) -> None:
        for worker, families in await self._pool.ask_all(ReadMetrics(), within_s=_COUNTED_WITHIN_S):
            self.note(worker, families)

    def _keep_registered(self, catalog: Catalog) -> None:
        self._dead.keep_only(
            {(model.name, number) for model in catalog.models.values() for number in model.versions}
        )
