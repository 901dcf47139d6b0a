"""
Keeping the stored metrics small: minutes become hours, hours become days, and what is older than
its retention goes.

Every gateway may try; the first one to move the level does the work, and the others find it done. A
span is rolled up an hour after its end. If a gateway that could not reach the database stores
minutes of it later, the span is rolled up again.
"""

import asyncio
import time
from dataclasses import dataclass

from gateway.metrics.merging import roll_up
from gateway.store.metrics_writers import MetricsWriterStore
from gateway.store.outage import StoreOutage
from gateway.store.request_metrics import (
    DAY_S,
    HOUR_S,
    MINUTE_S,
    Filters,
    RequestMetricsStore,
)
from gateway.store.version_samples import VersionSampleStore

GRACE_S = HOUR_S
"""How long after its end a span is rolled up."""
_EVERY_S = 60.0
_FINER = {HOUR_S: MINUTE_S, DAY_S: HOUR_S}


@dataclass(frozen=True, slots=True)
class Retention:
    """How long rows of each resolution are kept, in seconds."""

    minutes_s: float
    hours_s: float
    days_s: float


class Rollup:
    """Rolls up and prunes."""

    def __init__(
        self,
        store: RequestMetricsStore,
        samples: VersionSampleStore,
        writers: MetricsWriterStore,
        retention: Retention,
    ) -> None:
        self._store = store
        self._samples = samples
        self._writers = writers
        self._retention = retention

    async def follow(self) -> None:
        """Do what is due, every minute, for ever."""
        outage = StoreOutage("metrics_not_rolled_up", "metrics_rolled_up_again")
        while True:
            await asyncio.sleep(_EVERY_S)
            with outage.tolerated():
                await self.run(time.time())

    async def run(self, now_s: float) -> None:
        """
        Roll up and delete everything that is due at a moment.

        Raises:
            StoreUnavailable: The database is away; what was done is done.
        """
        await self._roll_up(HOUR_S, int(now_s) - GRACE_S)
        hours = (await self._store.levels())[HOUR_S]
        await self._roll_up(DAY_S, hours.complete_to_s)
        await self._prune(int(now_s))

    async def _roll_up(self, resolution_s: int, until_s: int) -> None:
        """Roll up every span of a resolution that ends by `until_s`."""
        finer_s = _FINER[resolution_s]
        was_s = (await self._store.levels())[resolution_s].complete_to_s
        while True:
            # A level begins with its first row, and a time without rows is passed in one step.
            first_s = await self._store.oldest_start_s(finer_s, since_s=was_s)
            if first_s is None:
                return
            start_s = first_s // resolution_s * resolution_s
            end_s = start_s + resolution_s
            if end_s > until_s:
                return
            rows = await self._store.read(finer_s, start_s, end_s, Filters())
            # Arithmetic on thousands of sketches: in a thread, so that requests go on.
            merged = await asyncio.to_thread(roll_up, rows, resolution_s)
            if not await self._store.complete(resolution_s, merged, was_s=was_s, now_s=end_s):
                return  # another gateway is at it, or a late minute came just now
            was_s = end_s

    async def _prune(self, now_s: int) -> None:
        levels = await self._store.levels()
        due = {
            MINUTE_S: int(now_s - self._retention.minutes_s) // HOUR_S * HOUR_S,
            HOUR_S: int(now_s - self._retention.hours_s) // DAY_S * DAY_S,
            DAY_S: int(now_s - self._retention.days_s) // DAY_S * DAY_S,
        }
        for resolution_s, before_s in due.items():
            if before_s > levels[resolution_s].kept_from_s:
                await self._store.prune(resolution_s, before_s)
        await self._writers.forget(now_s - self._retention.days_s)
        await self._samples.thin(
            minutes_before_s=int(now_s - self._retention.minutes_s) // HOUR_S * HOUR_S,
            hours_before_s=int(now_s - self._retention.hours_s) // HOUR_S * HOUR_S,
        )
