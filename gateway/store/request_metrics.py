"""
The stored metrics of requests, at three resolutions: minutes as they were recorded, hours and days
made from them.

A row belongs to the gateway process that wrote it (`writer`), which replaces it as a whole. So a
write may be repeated, and gateways add up when rows are read. What is rolled up has no writer.

`metrics_levels` says for each resolution up to when it is complete and from when on it still has
its rows; moving both in the transaction that writes or deletes rows keeps a reader from counting
anything twice or not at all. When a minute is stored after its hour was completed, the
hour is read from its minutes again until it is rolled up once more. Nothing is ever added to what
was rolled up, so it does not matter how much of the minute was in it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Select, delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.store.database import Database, insert_for
from gateway.store.metrics_tables import LevelRow, MetricsWriterRow, RequestMetricsRow

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400
RESOLUTIONS_S = (MINUTE_S, HOUR_S, DAY_S)
_BATCH_ROWS = 500
_FINER = {HOUR_S: MINUTE_S, DAY_S: HOUR_S}
_COARSER = {MINUTE_S: HOUR_S, HOUR_S: DAY_S}
_KEY = ("resolution_s", "start_s", "endpoint", "model", "version", "status", "writer")


@dataclass(frozen=True, slots=True)
class StoredMetrics:
    """
    What one row says: the requests of one endpoint, model, version and status in one span of time.

    Attributes:
        start_s: Beginning of the span, UTC in seconds.
        endpoint, model, version, status: What was asked and answered; "" and 0 stand for none.
        requests, bytes_in, bytes_out: Counts, and bytes of the bodies.
        errors: Requests by the error's code.
        categories: Answers by category.
        sketches: Latencies; opaque to the store.
    """

    start_s: int
    endpoint: str
    model: str
    version: int
    status: int
    requests: int
    bytes_in: int
    bytes_out: int
    errors: Mapping[str, int]
    categories: Mapping[str, int]
    sketches: bytes


@dataclass(frozen=True, slots=True)
class Level:
    """
    A resolution's state.

    Attributes:
        complete_to_s: Rolled up so far; 0 if never. Of minutes it says nothing.
        kept_from_s: Rows before this moment were deleted; 0 if none ever was.
    """

    complete_to_s: int = 0
    kept_from_s: int = 0


@dataclass(frozen=True, slots=True)
class Filters:
    """Which rows are wanted; an empty tuple wants all. A status of 5 means every 5xx."""

    endpoints: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    versions: tuple[int, ...] = ()
    statuses: tuple[int, ...] = ()


class RequestMetricsStore:
    """Reads and writes the rows. Every method may raise StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(
        self, rows: Iterable[StoredMetrics], *, writer: str, stored_to_s: float | None = None
    ) -> int:
        """
        Write minutes of one writer, each replacing what that writer said of it before.

        Args:
            rows: The minutes.
            writer: Who counted them.
            stored_to_s: Everything that it counted before this moment is stored with these rows.

        Returns:
            The moment before which minutes are not taken any more: what they would be added to is
            rolled up, and its own minutes are deleted. Such rows were not written.
        """
        async with self._database.write() as session:
            locked = select(LevelRow).with_for_update()
            levels = {row.resolution_s: row for row in (await session.scalars(locked)).all()}
            taken_from_s = max(
                (level.kept_from_s for level in levels.values() if level.resolution_s < DAY_S),
                default=0,
            )
            minutes = [row for row in rows if row.start_s >= taken_from_s]
            await _upsert(session, [_values(row, MINUTE_S, writer) for row in minutes])
            for resolution_s, level in levels.items():
                for row in minutes:
                    begins_s = row.start_s // resolution_s * resolution_s
                    if resolution_s > MINUTE_S and begins_s < level.complete_to_s:
                        level.complete_to_s = begins_s
            if stored_to_s is not None:
                await _say_stored(session, writer, stored_to_s)
        return taken_from_s

    async def levels(self) -> dict[int, Level]:
        """Read the state of every resolution."""
        async with self._database.read() as session:
            found = (await session.scalars(select(LevelRow))).all()
        states = {row.resolution_s: Level(row.complete_to_s, row.kept_from_s) for row in found}
        return {resolution_s: states.get(resolution_s, Level()) for resolution_s in RESOLUTIONS_S}

    async def read(
        self, resolution_s: int, start_s: int, end_s: int, filters: Filters
    ) -> Sequence[StoredMetrics]:
        """Read the rows of one resolution whose span begins in [start_s, end_s)."""
        columns = [getattr(RequestMetricsRow, name) for name in StoredMetrics.__slots__]
        query = select(*columns).where(
            RequestMetricsRow.resolution_s == resolution_s,
            RequestMetricsRow.start_s >= start_s,
            RequestMetricsRow.start_s < end_s,
        )
        async with self._database.read() as session:
            found = await session.execute(_filtered(query, filters))
            return [StoredMetrics(*row) for row in found]

    async def oldest_start_s(self, resolution_s: int, *, since_s: int) -> int | None:
        """Find the beginning of a resolution's first span at or after a moment; None: no row."""
        async with self._database.read() as session:
            return await session.scalar(
                select(func.min(RequestMetricsRow.start_s)).where(
                    RequestMetricsRow.resolution_s == resolution_s,
                    RequestMetricsRow.start_s >= since_s,
                )
            )

    async def complete(
        self, resolution_s: int, rows: Iterable[StoredMetrics], *, was_s: int, now_s: int
    ) -> bool:
        """
        Write what was rolled up and say that the resolution is complete up to `now_s`.

        Returns:
            False if it was not complete up to just `was_s` any more, because another gateway was
            faster, or if rows came since these were made of them; then nothing was written.
        """
        made = list(rows)
        async with self._database.write() as session:
            await _make_level(session, resolution_s)
            level = await session.get_one(LevelRow, resolution_s, with_for_update=True)
            if level.complete_to_s != was_s:
                return False
            # Rows only grow, so that the same sum means the same rows.
            finer = select(func.coalesce(func.sum(RequestMetricsRow.requests), 0)).where(
                RequestMetricsRow.resolution_s == _FINER[resolution_s],
                RequestMetricsRow.start_s >= now_s - resolution_s,
                RequestMetricsRow.start_s < now_s,
            )
            if await session.scalar(finer) != sum(row.requests for row in made):
                return False
            level.complete_to_s = now_s
            await _upsert(session, [_values(row, resolution_s, "") for row in made])
            return True

    async def prune(self, resolution_s: int, before_s: int) -> None:
        """
        Delete a resolution's rows whose span begins before a moment, and say so; but nothing that
        does not stand in the coarser resolution.
        """
        async with self._database.write() as session:
            await _make_level(session, resolution_s)
            locked = select(LevelRow).with_for_update()
            levels = {row.resolution_s: row for row in (await session.scalars(locked)).all()}
            if (coarser_s := _COARSER.get(resolution_s)) is not None:
                coarser = levels.get(coarser_s)
                before_s = min(before_s, coarser.complete_to_s if coarser else 0)
            level = levels[resolution_s]
            level.kept_from_s = max(level.kept_from_s, before_s)
            await session.execute(
                delete(RequestMetricsRow).where(
                    RequestMetricsRow.resolution_s == resolution_s,
                    RequestMetricsRow.start_s < before_s,
                )
            )


def _filtered(query: Select[Any], filters: Filters) -> Select[Any]:
    if filters.endpoints:
        query = query.where(RequestMetricsRow.endpoint.in_(filters.endpoints))
    if filters.models:
        query = query.where(RequestMetricsRow.model.in_(filters.models))
    if filters.versions:
        query = query.where(RequestMetricsRow.version.in_(filters.versions))
    if filters.statuses:
        exact = [status for status in filters.statuses if status >= 100]
        classes = [status for status in filters.statuses if status < 100]
        query = query.where(
            RequestMetricsRow.status.in_(exact)
            | (RequestMetricsRow.status.op("/")(100)).in_(classes)
        )
    return query


def _values(row: StoredMetrics, resolution_s: int, writer: str) -> dict[str, Any]:
    values = asdict(row)
    values["errors"], values["categories"] = dict(row.errors), dict(row.categories)
    return {**values, "resolution_s": resolution_s, "writer": writer}


async def _upsert(session: AsyncSession, values: Sequence[dict[str, Any]]) -> None:
    statement = insert_for(session)(RequestMetricsRow)
    replaced = {
        column.name: statement.excluded[column.name]
        for column in RequestMetricsRow.__table__.columns
        if column.name not in _KEY
    }
    statement = statement.on_conflict_do_update(index_elements=_KEY, set_=replaced)
    for at in range(0, len(values), _BATCH_ROWS):
        await session.execute(statement, values[at : at + _BATCH_ROWS])


async def _say_stored(session: AsyncSession, writer: str, stored_to_s: float) -> None:
    statement = insert_for(session)(MetricsWriterRow).values(writer=writer, stored_to_s=stored_to_s)
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=["writer"], set_={"stored_to_s": statement.excluded.stored_to_s}
        )
    )


async def _make_level(session: AsyncSession, resolution_s: int) -> None:
    values = {"resolution_s": resolution_s, "complete_to_s": 0, "kept_from_s": 0}
    await session.execute(insert_for(session)(LevelRow).values(values).on_conflict_do_nothing())
