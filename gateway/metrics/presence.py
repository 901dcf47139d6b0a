"""
Find at start what a killed predecessor on the same data folder lost; log it and store it.

Its row says until when its counts are stored, its file when it was last alive. The counts between
the two are lost: those since its last flush, or since the database went away.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import structlog

from gateway.errors import StoreUnavailable
from gateway.metrics.lifesign import Dead, LifeSign, find_dead
from gateway.metrics.times import iso_ms
from gateway.metrics.writer import MetricsWriter
from gateway.store.metrics_writers import MetricsWriterStore

log = structlog.get_logger(__name__)


class Presence:
    """One process among those that count."""

    def __init__(
        self,
        folder: Path,
        writers: MetricsWriterStore,
        writer: MetricsWriter,
        *,
        interval_s: float,
    ) -> None:
        self._folder = folder
        self._writers = writers
        self._writer = writer
        self._interval_s = interval_s
        self._beat_s = min(1.0, interval_s / 10)
        self._sign: LifeSign | None = None

    @contextlib.asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """
        Tell what predecessors lost; show this process as alive until the block ends, and as stopped
        in order if everything could be stored by then.

        Raises:
            StoreUnavailable: The database is away at the beginning.
        """
        await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True)
        for dead in find_dead(self._folder):
            await self._tell(dead)
        with LifeSign(self._folder, self._writer.name) as self._sign:
            await self._writer.flush()
            try:
                yield
            finally:
                if await self._writer.try_flush():
                    with contextlib.suppress(StoreUnavailable):
                        await self._writers.stopped(self._writer.name)
                        self._sign.withdraw()

    async def follow(self) -> None:
        """Say that this process is alive, for ever."""
        while True:
            if self._sign is not None:
                self._sign.touch()
            await asyncio.sleep(self._beat_s)

    async def _tell(self, dead: Dead) -> None:
        since_s = await self._writers.stored_to_s(dead.name)
        if since_s is None:
            return  # it stopped in order, or counted into another database
        # On a busy machine a beat may itself be late by one.
        until_s = dead.alive_at_s + 2 * self._beat_s
        if psutil.boot_time() > dead.alive_at_s:
            # After a power cut the file may be older than the last flush, which is on the disk.
            until_s = max(until_s, since_s) + self._interval_s
        until_s = max(until_s, since_s)
        await self._writers.killed(dead.name, lost_to_s=until_s)
        log.warning(
            "metrics_lost",
            since=iso_ms(since_s),
            until=iso_ms(until_s),
            at_most_s=round(until_s - since_s, 3),
            reason="a gateway was killed",
        )
