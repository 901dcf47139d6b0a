"""Answers what workers ask and hears what they say, from the parent's open parts."""

import asyncio
import contextlib
from collections.abc import Iterator
from functools import partial

from prometheus_client.core import Metric

from gateway.background.tasks import TaskSet
from gateway.core import Core
from gateway.errors import StoreUnavailable
from gateway.peers import AnswerGiven
from gateway.settings import Settings
from gateway.store.audit import acting_for
from gateway.workers.parent.acceptor import Acceptor
from gateway.workers.parent.pool import WorkerPool
from gateway.workers.parent.propagation import Propagation
from gateway.workers.parent.reports import Reports
from gateway.workers.parent.scrape import ScrapedTotals
from gateway.workers.parent.shares import share_of
from gateway.workers.parent.state_feed import StateFeed
from gateway.workers.parent.worker import Worker
from gateway.workers.wire import messages
from gateway.workers.wire.messages import State

_COUNTED_WITHIN_S = 1.0


class WorkerCalls:
    """What stands behind every worker's channel."""

    def __init__(
        self,
        settings: Settings,
        core: Core,
        *,
        pool: WorkerPool,
        acceptor: Acceptor,
        propagation: Propagation,
        reports: Reports,
        feed: StateFeed,
        validations: asyncio.Semaphore,
    ) -> None:
        self._settings = settings
        self._registry = core.registry
        self._control = core.control
        self._pool = pool
        self._acceptor = acceptor
        self._propagation = propagation
        self._reports = reports
        self._feed = feed
        self._validations = validations
        self._totals = ScrapedTotals(
            pool,
            reports,
            core.metrics,
            registry=core.registry,
            replicas=core.control.replicas,
        )
        self._tasks = TaskSet()
        pool.on_end(self._free_slots)

    @contextlib.contextmanager
    def attend(self, worker: Worker) -> Iterator[None]:
        """Answer one worker for the length of a block."""
        channel = worker.channel
        with contextlib.ExitStack() as stack:
            for opened in (
                channel.answering(messages.Hello, partial(self._greet, worker)),
                channel.answering(messages.Follow, partial(self._follow, worker)),
                channel.answering(messages.Load, self._load),
                channel.answering(messages.Unload, self._unload),
                channel.answering(messages.SyncFolder, self._sync_folder),
                channel.answering(messages.Propagate, self._propagate),
                channel.answering(messages.Scrape, self._scrape),
                channel.answering(messages.StoreAllMetrics, partial(self._store_all, worker)),
                channel.answering(messages.RecallAnswer, partial(self._recall, worker)),
                channel.answering(messages.TakeValidationSlot, partial(self._take_slot, worker)),
                channel.on(messages.GiveValidationSlot, partial(self._hear_slot_given, worker)),
                channel.on(messages.Knows, partial(self._hear_knows, worker)),
                channel.on(messages.Serving, partial(self._hear_serving, worker)),
                channel.on(messages.WorkerReady, partial(self._hear_ready, worker)),
                channel.on(messages.Repair, self._hear_repair),
                channel.on(messages.WorkerReport, partial(self._reports.note, worker)),
                channel.on(messages.WorkerMetrics, partial(self._hear_metrics, worker)),
            ):
                stack.enter_context(opened)
            yield

    async def close(self) -> None:
        """End what was begun for workers."""
        await self._tasks.close()

    async def _greet(self, worker: Worker, _hello: messages.Hello) -> Settings:
        return share_of(self._settings, worker.number)

    async def _follow(self, worker: Worker, _follow: messages.Follow) -> State:
        worker.follows = True
        return self._feed.state()

    async def _load(self, asked: messages.Load) -> int:
        lifecycle = self._control.lifecycle
        with acting_for(asked.origin):
            return (await lifecycle.load(asked.model, asked.version, actor=asked.actor)).version

    async def _unload(self, asked: messages.Unload) -> None:
        with acting_for(asked.origin):
            await self._control.lifecycle.unload(asked.model, asked.version, actor=asked.actor)

    async def _sync_folder(self, asked: messages.SyncFolder) -> None:
        if self._control.models_folder is not None:
            await self._control.models_folder.sync(asked.model)

    async def _propagate(self, _asked: messages.Propagate) -> None:
        await self._refresh()
        await self._propagation.everywhere()

    async def _scrape(self, _asked: messages.Scrape) -> list[Metric]:
        return await self._totals.read()

    async def _store_all(self, worker: Worker, _asked: messages.StoreAllMetrics) -> None:
        await self._pool.ask_all(messages.StoreMetrics(), within_s=_COUNTED_WITHIN_S, but=worker)

    async def _recall(self, worker: Worker, asked: messages.RecallAnswer) -> AnswerGiven | None:
        answers = await self._pool.ask_all(asked, within_s=_COUNTED_WITHIN_S, but=worker)
        return next((given for _, given in answers if given is not None), None)

    async def _take_slot(self, worker: Worker, _asked: messages.TakeValidationSlot) -> None:
        await self._validations.acquire()
        worker.validation_slots += 1
        if worker not in self._pool:
            # It ended while it waited: nobody else would give this slot back.
            self._free_slots(worker)

    def _hear_slot_given(self, worker: Worker, _heard: messages.GiveValidationSlot) -> None:
        worker.validation_slots -= 1
        self._validations.release()

    def _free_slots(self, worker: Worker) -> None:
        while worker.validation_slots > 0:
            worker.validation_slots -= 1
            self._validations.release()

    def _hear_knows(self, worker: Worker, heard: messages.Knows) -> None:
        self._propagation.note(worker, heard.generation, heard.revision)
        if heard.generation > self._propagation.generation:
            self._tasks.start(self._refresh())

    async def _refresh(self) -> None:
        with contextlib.suppress(StoreUnavailable):  # whoever follows the store says so
            await self._registry.refresh()

    def _hear_serving(self, worker: Worker, _heard: messages.Serving) -> None:
        worker.serving = True
        self._acceptor.open()

    def _hear_ready(self, worker: Worker, _heard: messages.WorkerReady) -> None:
        self._pool.note_ready(worker)

    def _hear_repair(self, heard: messages.Repair) -> None:
        for replica in self._control.replicas:
            if replica.name == heard.replica:
                repairs = self._control.repairs
                self._tasks.start(
                    repairs.repair(replica, heard.served, noticed_at_s=heard.noticed_at_s)
                )

    def _hear_metrics(self, worker: Worker, heard: messages.WorkerMetrics) -> None:
        self._totals.note(worker, heard.families)
