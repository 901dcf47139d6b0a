"""The rows of feedback: answers that wait for their true class, and accuracy by version."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.store.database import Database
from gateway.store.rollout_tables import AccuracyRow, AnsweredRow, RolloutRow

# Below the number of parameters that SQLite takes in one statement.
_AT_ONCE = 5_000


@dataclass(frozen=True, slots=True)
class Answered:
    """A request of a rollout that was answered by `version`; in shadow, by the challenger too."""

    request_id: str
    rollout: str
    stage: int
    step: int
    model: str
    version: int
    category: int
    challenger_category: int | None
    at_s: float
    by_challenger: bool = False


class FeedbackStore:
    """Reads and changes those rows. Every method may raise StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put_answers(self, answers: Iterable[Answered]) -> None:
        """Store answers; one with an id that was seen before takes its place."""
        rows = []
        for answer in answers:
            row = asdict(answer) | {"labelled": False}
            del row["by_challenger"]
            rows.append(row)
        for start in range(0, len(rows), _AT_ONCE):
            batch = rows[start : start + _AT_ONCE]
            async with self._database.write() as session:
                ids = [row["request_id"] for row in batch]
                await session.execute(delete(AnsweredRow).where(AnsweredRow.request_id.in_(ids)))
                await session.execute(insert(AnsweredRow), batch)

    async def claim(self, request_id: str, category: int) -> tuple[Answered, bool] | None:
        """
        Find an answer, mark it as judged, and count it for its version's accuracy if it was not.

        Returns:
            The answer, and whether this was the first time; None if there is none.
        """
        async with self._database.write() as session:
            row = await session.get(AnsweredRow, request_id, with_for_update=True)
            if row is None:
                return None
            rollout = await session.get(RolloutRow, row.rollout)
            first, row.labelled = not row.labelled, True
            if first:
                await _count(session, row.model, row.version, wrong=row.category != category)
            answered = Answered(
                request_id=row.request_id,
                rollout=row.rollout,
                stage=row.stage,
                step=row.step,
                model=row.model,
                version=row.version,
                category=row.category,
                challenger_category=row.challenger_category,
                at_s=row.at_s,
                by_challenger=rollout is not None and rollout.challenger == row.version,
            )
            return answered, first

    async def add(self, model: str, version: int, *, wrong: bool) -> None:
        """Count feedback on a version."""
        async with self._database.write() as session:
            await _count(session, model, version, wrong=wrong)

    async def accuracy(self, model: str) -> Sequence[AccuracyRow]:
        """Read the feedback on a model's versions."""
        async with self._database.read() as session:
            query = select(AccuracyRow).where(AccuracyRow.model == model)
            return (await session.scalars(query.order_by(AccuracyRow.version))).all()

    async def forget(self, *, older_than_s: float) -> None:
        """Delete answers that nobody gave feedback on for so many seconds."""
        async with self._database.write() as session:
            limit_s = time.time() - older_than_s
            await session.execute(delete(AnsweredRow).where(AnsweredRow.at_s < limit_s))


async def _count(session: AsyncSession, model: str, version: int, *, wrong: bool) -> None:
    changed = await session.execute(
        update(AccuracyRow)
        .where(AccuracyRow.model == model, AccuracyRow.version == version)
        .values(labelled=AccuracyRow.labelled + 1, wrong=AccuracyRow.wrong + int(wrong))
        .returning(AccuracyRow.version)
    )
    if not changed.all():
        session.add(AccuracyRow(model=model, version=version, labelled=1, wrong=int(wrong)))
