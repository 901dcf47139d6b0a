"""
The one writer of stored metrics: takes what the recorder has counted to the database, every few
seconds and once more at the end. Off the path of requests; while the database is away the recorder
keeps what it can.
"""

import asyncio
from collections.abc import Sequence

import structlog

from gateway.errors import StoreUnavailable
from gateway.store.request_metrics import RequestMetricsStore, StoredMetrics
from gateway.telemetry.request_metrics import Cell, Key, Recorder

log = structlog.get_logger(__name__)

_ROWS_AT_ONCE = 2000


class MetricsWriter:
    """Writes a recorder's cells. `writer` names this process, for as long as it lives."""

    def __init__(self, recorder: Recorder, store: RequestMetricsStore, *, writer: str) -> None:
        self._recorder = recorder
        self._store = store
        self._writer = writer
        self._flushing = asyncio.Lock()
        self._reachable = True

    async def flush(self) -> None:
        """
        Write everything that was recorded before the call. Flushing again does no harm.

        Raises:
            StoreUnavailable: The database is away; the recorder keeps what was not written.
        """
        async with self._flushing:
            cells = self._recorder.unwritten()
            for at in range(0, len(cells), _ROWS_AT_ONCE):
                await self._write(cells[at : at + _ROWS_AT_ONCE])
            self._recorder.forget_written()

    async def _write(self, cells: Sequence[tuple[Key, Cell]]) -> None:
        rows, counted = [], []
        for key, cell in cells:
            rows.append(_stored(key, cell))
            counted.append((cell, cell.requests))
            # A cell is packed in a quarter of a millisecond; requests go on in between.
            await asyncio.sleep(0)
        await self._store.write(rows, writer=self._writer)
        for cell, requests in counted:
            cell.written = requests

    async def follow(self, interval_s: float) -> None:
        """Flush for ever, every `interval_s` seconds."""
        while True:
            await asyncio.sleep(interval_s)
            await self.try_flush()

    async def try_flush(self) -> None:
        """Flush if the database can be reached; says once when it goes and when it comes back."""
        try:
            await self.flush()
        except StoreUnavailable as error:
            if self._reachable:
                log.warning("metrics_not_stored", reason=str(error.__cause__))
            self._reachable = False
        else:
            if not self._reachable:
                lost = self._recorder.lost
                log.info("metrics_stored_again", lost_rows=lost.rows, lost_requests=lost.requests)
            self._reachable = True


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
