"""
The one writer of stored metrics: takes what the recorder has counted to the database, every few
seconds and once more at the end. Off the path of requests; while the database is away the recorder
keeps what it can.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

from gateway.store.outage import StoreOutage
from gateway.store.request_metrics import RequestMetricsStore, StoredMetrics
from gateway.telemetry.request_metrics import Cell, Key, Recorder

_ROWS_AT_ONCE = 2000


class MetricsWriter:
    """Writes a recorder's cells. `name` tells this process from every other, before and after."""

    def __init__(
        self,
        recorder: Recorder,
        store: RequestMetricsStore,
        *,
        name: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._recorder = recorder
        self._store = store
        self.name = name
        self._clock = clock
        self._flushing = asyncio.Lock()
        self._outage = StoreOutage("metrics_not_stored", "metrics_stored_again", details=self._lost)

    async def flush(self) -> None:
        """
        Write everything that was recorded before the call. Flushing again does no harm.

        Raises:
            StoreUnavailable: The database is away; the recorder keeps what was not written.
        """
        async with self._flushing:
            stored_to_s = self._clock()
            cells = self._recorder.unwritten()
            # The last transaction says that all is stored, also if there was nothing to write.
            *before, last = [
                cells[at : at + _ROWS_AT_ONCE] for at in range(0, len(cells), _ROWS_AT_ONCE)
            ] or [[]]
            for part in before:
                await self._write(part, None)
            await self._write(last, stored_to_s)
            self._recorder.forget_written()

    async def _write(self, cells: Sequence[tuple[Key, Cell]], stored_to_s: float | None) -> None:
        rows, counted = [], []
        for key, cell in cells:
            rows.append(_stored(key, cell))
            counted.append((cell, cell.requests))
            # A cell is packed in a quarter of a millisecond; requests go on in between.
            await asyncio.sleep(0)
        taken_from_s = await self._store.write(rows, writer=self.name, stored_to_s=stored_to_s)
        for row, (cell, requests) in zip(rows, counted, strict=True):
            if row.start_s < taken_from_s:
                self._recorder.lose(requests - cell.written)
            cell.written = requests

    async def follow(self, interval_s: float) -> None:
        """Flush for ever, so often that a kill loses what was counted in `interval_s` at most."""
        took_s = 0.0
        while True:
            # What a flush brings is safe when it ends: the time that it takes counts, too.
            await asyncio.sleep(max(0.9 * interval_s - took_s, 0.5 * interval_s))
            began_s = time.monotonic()
            await self.try_flush()
            took_s = time.monotonic() - began_s

    async def try_flush(self) -> bool:
        """Flush if the database can be reached; return whether it could."""
        with self._outage.tolerated():
            await self.flush()
        return self._outage.reachable

    def _lost(self) -> dict[str, object]:
        lost = self._recorder.lost
        return {"lost_rows": lost.rows, "lost_requests": lost.requests}


def _stored(key: Key, cell: Cell) -> StoredMetrics:
    return StoredMetrics(
        start_s=key.start_s,
        endpoint=key.endpoint,
        model=key.model,
        version=key.version,
        status=key.status,
        requests=cell.requests,
        bytes_in=cell.bytes_in,
        bytes_out=cell.bytes_out,
        errors=dict(cell.errors),
        categories=dict(cell.categories),
        sketches=cell.packed_sketches(),
    )
