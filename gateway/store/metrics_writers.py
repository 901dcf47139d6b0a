"""
The processes that count, and what is missing because one of them was killed.

With every flush a process records until when its counts are stored, in the transaction that stores
them (`request_metrics.py`). One that stops in order deletes its row. A row that stays
behind says when the missing counts begin. Whoever finds that the process is dead writes when they
end.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, or_, select, update

from gateway.store.database import Database
from gateway.store.metrics_tables import MetricsWriterRow


@dataclass(frozen=True, slots=True)
class Gap:
    """
    A time of which one process's counts are not stored. UTC in seconds.

    Attributes:
        since_s: Everything before is stored.
        until_s: It counted nothing afterwards; None if it may be counting still.
    """

    since_s: float
    until_s: float | None


class MetricsWriterStore:
    """Reads and ends the rows. Every method may raise StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def stopped(self, writer: str) -> None:
        """Forget a process that has stored everything and counts no more."""
        async with self._database.write() as session:
            await session.execute(delete(MetricsWriterRow).where(MetricsWriterRow.writer == writer))

    async def stored_to_s(self, writer: str) -> float | None:
        """Read up to when a process's counts are stored; None if it is not known."""
        async with self._database.read() as session:
            return await session.scalar(
                select(MetricsWriterRow.stored_to_s).where(MetricsWriterRow.writer == writer)
            )

    async def killed(self, writer: str, *, lost_to_s: float) -> None:
        """Write down until when a dead process may have counted."""
        async with self._database.write() as session:
            await session.execute(
                update(MetricsWriterRow)
                .where(MetricsWriterRow.writer == writer)
                .values(lost_to_s=lost_to_s)
            )

    async def gaps(self, start_s: float, end_s: float, *, silent_s: float) -> Sequence[Gap]:
        """
        Read what is missing in [start_s, end_s), by its beginning: of the killed, and of whoever
        has stored nothing since `silent_s`, be it cut off from the database or dead.
        """
        row = MetricsWriterRow
        query = select(row.stored_to_s, row.lost_to_s).where(
            row.stored_to_s < end_s,
            func.coalesce(row.lost_to_s, end_s) > start_s,
            or_(row.lost_to_s.is_not(None), row.stored_to_s < silent_s),
        )
        async with self._database.read() as session:
            found = await session.execute(query.order_by(row.stored_to_s))
            return [Gap(since_s, until_s) for since_s, until_s in found]

    async def forget(self, before_s: float) -> None:
        """Delete what is missing from before a moment."""
        async with self._database.write() as session:
            await session.execute(
                delete(MetricsWriterRow).where(MetricsWriterRow.stored_to_s < before_s)
            )
