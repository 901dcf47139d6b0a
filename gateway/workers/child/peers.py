"""The other workers, asked through the parent."""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence

from prometheus_client.core import Metric

from gateway.background.tasks import log_fault
from gateway.errors import ChannelClosed
from gateway.peers import AnswerGiven, Counts
from gateway.workers.wire.channel import Channel
from gateway.workers.wire.messages import (
    Propagate,
    ReadMetrics,
    RecallAnswer,
    Scrape,
    StoreAllMetrics,
    StoreMetrics,
    WorkerMetrics,
)


class RemotePeers:
    """A worker's `Peers`."""

    def __init__(self, parent: Channel) -> None:
        self._parent = parent

    @contextlib.contextmanager
    def offering(self, counts: Counts) -> Iterator[None]:
        """Answer what the others ask of this process's counts, for the length of a block."""

        async def read(_asked: ReadMetrics) -> list[Metric]:
            return counts.shown()

        async def store(_asked: StoreMetrics) -> None:
            await counts.flush()

        async def recall(asked: RecallAnswer) -> AnswerGiven | None:
            return await counts.recall(asked.request_id)

        async def keep_sending() -> None:
            while True:
                await asyncio.sleep(counts.every_s)
                self._parent.tell(WorkerMetrics(counts.shown()))

        with (
            self._parent.answering(ReadMetrics, read),
            self._parent.answering(StoreMetrics, store),
            self._parent.answering(RecallAnswer, recall),
        ):
            sending = asyncio.create_task(keep_sending())
            sending.add_done_callback(log_fault)
            try:
                yield
            finally:
                sending.cancel()

    async def propagate(self) -> None:
        """Return when all workers know what this one has changed."""
        with contextlib.suppress(ChannelClosed):
            await self._parent.ask(Propagate())

    async def flush(self) -> None:
        """Have all other workers store what they have counted."""
        await self._parent.ask(StoreAllMetrics())

    async def scrape(self) -> Sequence[Metric] | None:
        """Add up all workers' metrics and the parent's."""
        return await self._parent.ask(Scrape())

    async def recall(self, request_id: str) -> AnswerGiven | None:
        """Find the answer to a request that another worker gave."""
        return await self._parent.ask(RecallAnswer(request_id))
