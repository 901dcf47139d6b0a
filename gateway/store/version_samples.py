"""What was measured of versions beside their requests: minutes, and hours made from them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import delete, select

from gateway.store.database import Database, insert_for
from gateway.store.metrics_tables import VersionSampleRow

MINUTE_S, HOUR_S = 60, 3600


@dataclass(frozen=True, slots=True)
class VersionSample:
    """
    One look at one version on one replica.

    Attributes:
        start_s: The minute, or the hour, UTC in seconds.
        replica, model, version: What was looked at.
        load_s: How long its last load took; None if this gateway did not load it.
        memory_bytes: Resident memory of its backend processes; None on a remote replica.
        gpu_memory_bytes: Their memory on the GPU; None where there is none.
        pending: Requests that waited in Triton at that moment.
        inferences, executions: What Triton did since the look before: images, and batches of them.
        queue_s, compute_s: Time that these spent waiting and computing, added up.
        batch_sizes: Executions by size of the batch.
    """

    start_s: int
    replica: str
    model: str
    version: int
    load_s: float | None
    memory_bytes: int | None
    gpu_memory_bytes: int | None
    pending: int | None
    inferences: int
    executions: int
    queue_s: float
    compute_s: float
    batch_sizes: Mapping[str, int]


class VersionSampleStore:
    """Reads and writes samples. Every method may raise StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(
        self, samples: Iterable[VersionSample], *, writer: str, resolution_s: int = MINUTE_S
    ) -> None:
        """Write samples, each replacing what that writer said of its minute before."""
        values = [
            {
                **asdict(sample),
                "batch_sizes": dict(sample.batch_sizes),
                "resolution_s": resolution_s,
                "writer": writer,
            }
            for sample in samples
        ]
        if not values:
            return
        async with self._database.write() as session:
            statement = insert_for(session)(VersionSampleRow)
            key = [column.name for column in VersionSampleRow.__table__.primary_key]
            replaced = {
                column.name: statement.excluded[column.name]
                for column in VersionSampleRow.__table__.columns
                if column.name not in key
            }
            await session.execute(
                statement.on_conflict_do_update(index_elements=key, set_=replaced), values
            )

    async def read(
        self,
        start_s: int,
        end_s: int,
        *,
        model: str | None = None,
        versions: Sequence[int] = (),
        resolution_s: int | None = None,
    ) -> Sequence[VersionSample]:
        """Read the samples that begin in [start_s, end_s), of every resolution or one."""
        columns = [getattr(VersionSampleRow, name) for name in VersionSample.__slots__]
        query = select(*columns).where(
            VersionSampleRow.start_s >= start_s, VersionSampleRow.start_s < end_s
        )
        if model is not None:
            query = query.where(VersionSampleRow.model == model)
        if versions:
            query = query.where(VersionSampleRow.version.in_(versions))
        if resolution_s is not None:
            query = query.where(VersionSampleRow.resolution_s == resolution_s)
        ordered = query.order_by(
            VersionSampleRow.start_s,
            VersionSampleRow.model,
            VersionSampleRow.version,
            VersionSampleRow.replica,
        )
        async with self._database.read() as session:
            return [VersionSample(*row) for row in await session.execute(ordered)]

    async def thin(self, *, minutes_before_s: int, hours_before_s: int) -> None:
        """Turn minutes before a moment into hours, and delete hours before another."""
        old = await self.read(0, minutes_before_s, resolution_s=MINUTE_S)
        spans: dict[tuple[int, str, str, int], list[VersionSample]] = {}
        for sample in old:
            hour_s = sample.start_s // HOUR_S * HOUR_S
            key = hour_s, sample.replica, sample.model, sample.version
            spans.setdefault(key, []).append(sample)
        await self.write(
            [_together(key[0], found) for key, found in spans.items()],
            writer="",
            resolution_s=HOUR_S,
        )
        async with self._database.write() as session:
            for resolution_s, before_s in ((MINUTE_S, minutes_before_s), (HOUR_S, hours_before_s)):
                await session.execute(
                    delete(VersionSampleRow).where(
                        VersionSampleRow.resolution_s == resolution_s,
                        VersionSampleRow.start_s < before_s,
                    )
                )


def _together(start_s: int, samples: Sequence[VersionSample]) -> VersionSample:
    """Sum up what adds up, and keep the largest of what does not."""
    sizes: dict[str, int] = {}
    for sample in samples:
        for size, count in sample.batch_sizes.items():
            sizes[size] = sizes.get(size, 0) + count
    last = samples[-1]
    return VersionSample(
        start_s=start_s,
        replica=last.replica,
        model=last.model,
        version=last.version,
        load_s=last.load_s,
        memory_bytes=max((s.memory_bytes for s in samples if s.memory_bytes), default=None),
        gpu_memory_bytes=max(
            (s.gpu_memory_bytes for s in samples if s.gpu_memory_bytes), default=None
        ),
        pending=max((s.pending for s in samples if s.pending is not None), default=None),
        inferences=sum(s.inferences for s in samples),
        executions=sum(s.executions for s in samples),
        queue_s=sum(s.queue_s for s in samples),
        compute_s=sum(s.compute_s for s in samples),
        batch_sizes=sizes,
    )
