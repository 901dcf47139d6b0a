"""
Who knows which change. The answer to a change waits until every worker knows it: a client's next
request may reach any of them.

It waits a second at most, because a worker that hangs must not hold the others up; nobody waits
again for a worker that was late, before it has said something.
"""

import asyncio

import structlog

from gateway.workers.parent.pool import WorkerPool
from gateway.workers.parent.worker import Worker

log = structlog.get_logger(__name__)

_KNOWN_WITHIN_S = 1.0


class Propagation:
    """
    Compares what the parent knows with what each worker says that it knows.

    Attributes:
        generation: Of the parent's catalog.
        revision: Of the state that the parent sent last.
    """

    def __init__(self, pool: WorkerPool) -> None:
        self.generation = -1
        self.revision = 0
        self._pool = pool
        self._waiting: dict[asyncio.Future[None], tuple[int, int]] = {}
        pool.on_end(self._hear_end)

    def note(self, worker: Worker, generation: int, revision: int) -> None:
        """Hear what a worker knows."""
        worker.generation, worker.revision, worker.silent = generation, revision, False
        self._wake()

    async def everywhere(self) -> None:
        """Wait until every worker knows the catalog and the state as they are now."""
        now = self.generation, self.revision
        if not self._lagging(now):
            return
        known: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[known] = now
        try:
            async with asyncio.timeout(_KNOWN_WITHIN_S):
                await known
        except TimeoutError:
            for worker in self._lagging(now):
                worker.silent = True
                log.warning("worker_lags", worker=worker.number)
        finally:
            del self._waiting[known]

    def _lagging(self, now: tuple[int, int]) -> list[Worker]:
        return [worker for worker in self._pool if worker.lags(*now)]

    def _hear_end(self, _worker: Worker) -> None:
        self._wake()

    def _wake(self) -> None:
        for known, now in self._waiting.items():
            if not known.done() and not self._lagging(now):
                known.set_result(None)
