"""
The stored metrics of requests, at three resolutions: minutes as they were recorded, hours and days
made from them.

A row belongs to the gateway process that wrote it (`writer`), which replaces it as a whole. So a
write may be repeated, and gateways add up when rows are read. What is rolled up has no writer.

`metrics_levels` says for each resolution up to when it is complete and from when on it still has
its rows; moving both in the transaction that writes or deletes rows keeps a reader from counting
anything twice or not at all.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Select, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.store.database import Database
from gateway.store.metrics_tables import LevelRow, RequestMetricsRow

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400
RESOLUTIONS_S = (MINUTE_S, HOUR_S, DAY_S)
_BATCH_ROWS = 500
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

    async def write(self, rows: Iterable[StoredMetrics], *, writer: str) -> None:
        """
        Write minutes of one writer, each replacing what that writer said of it before. A minute
        that was held back for so long that its hour is rolled up already is added there, too.
        """
        minutes = list(rows)
        if not minutes:
            return
        async with self._database.write() as session:
            values = [_values(row, MINUTE_S, writer) for row in minutes]
            for level in (await session.scalars(select(LevelRow).with_for_update())).all():
                values += [
                    _values(row, level.resolution_s, writer)
                    for row in minutes
                    if row.start_s < level.complete_to_s
                ]
            await _upsert(session, values)

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
            False if it was not complete up to just `was_s` any more: another gateway was faster,
            and nothing was written.
        """
        async with self._database.write() as session:
            await _make_level(session, resolution_s)
            # The row is the lock, and the comparison tells whether it was free.
            moved = await session.execute(
                update(LevelRow)
                .where(LevelRow.resolution_s == resolution_s, LevelRow.complete_to_s == was_s)
                .values(complete_to_s=now_s)
                .returning(LevelRow.resolution_s)
            )
            if moved.first() is None:
                return False
            await _upsert(session, [_values(row, resolution_s, "") for row in rows])
            return True

    async def prune(self, resolution_s: int, before_s: int) -> None:
        """Delete a resolution's rows whose span begins before a moment, and say so."""
        async with self._database.write() as session:
            await _make_level(session, resolution_s)
            await session.execute(
                update(LevelRow)
                .where(LevelRow.resolution_s == resolution_s, LevelRow.kept_from_s < before_s)
                .values(kept_from_s=before_s)
            )
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
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    statement = insert(RequestMetricsRow)
    replaced = {
        column.name: statement.excluded[column.name]
        for column in RequestMetricsRow.__table__.columns
        if column.name not in _KEY
    }
    statement = statement.on_conflict_do_update(index_elements=_KEY, set_=replaced)
    for at in range(0, len(values), _BATCH_ROWS):
        await session.execute(statement, values[at : at + _BATCH_ROWS])


async def _make_level(session: AsyncSession, resolution_s: int) -> None:
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    values = {"resolution_s": resolution_s, "complete_to_s": 0, "kept_from_s": 0}
    await session.execute(insert(LevelRow).values(values).on_conflict_do_nothing())
