"""
What the workers ask of replicas, shown on the parent's replicas.

The parent serves nothing. By itself it could not tell a version that answers from one that kills
its process, and strikes depend on that.
"""

import time
from collections import Counter

from gateway.triton.replicas import ReplicaSet
from gateway.workers.parent.pool import WorkerPool
from gateway.workers.parent.worker import Worker
from gateway.workers.wire.messages import ReadReport, WorkerReport

_REPORTED_WITHIN_S = 0.25


class Reports:
    """Takes reports in, and adds them up."""

    def __init__(self, pool: WorkerPool, replicas: ReplicaSet) -> None:
        self._pool = pool
        self._replicas = replicas
        pool.on_end(lambda _worker: self._add_up())

    def note(self, worker: Worker, report: WorkerReport) -> None:
        """Hear how a worker is."""
        worker.report, worker.heard_at_s = report, time.monotonic()
        worker.handover.note(open_now=report.connections, taken=report.taken)
        self._add_up()

    async def collect(self) -> None:
        """Have every worker report, for a moment at most."""
        for worker, report in await self._pool.ask_all(ReadReport(), within_s=_REPORTED_WITHIN_S):
            self.note(worker, report)

    def _add_up(self) -> None:
        reports = [worker.report for worker in self._pool if worker.report is not None]
        for replica in self._replicas:
            in_flight: Counter[tuple[str, int]] = Counter()
            for report in reports:
                in_flight.update(report.in_flight.get(replica.name, {}))
                for served, at_s in report.answered_at_s.get(replica.name, {}).items():
                    if at_s > replica.answered_at_s.get(served, 0.0):
                        replica.answered_at_s[served] = at_s
            replica.in_flight = in_flight
