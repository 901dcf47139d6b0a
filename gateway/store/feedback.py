"""The rows of feedback: answers that wait for their true class, and accuracy by version."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.store.database import Database, insert_for
from gateway.store.group_commit import GroupCommit
from gateway.store.rollout_tables import AccuracyRow, AnsweredRow, RolloutRow

# Below the number of parameters that SQLite takes in one statement.
_AT_ONCE = 5_000
Sees = Callable[[str], bool]
"""Whether a model exists for a caller."""
Told = tuple[str, int, bool]
"""Feedback on one answer: the model, the version, and whether the answer was wrong."""


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
        self._claims = GroupCommit(self._claim_all)
        self._additions = GroupCommit(self._add_all)

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

    async def claim(
        self, request_id: str, category: int, sees: Sees = lambda _: True
    ) -> tuple[Answered, bool] | None:
        """
        Find an answer of a model that the caller sees, mark it as judged, and count it for its
        version's accuracy if it was not. Calls that come together share a transaction.

        Returns:
            The answer, and whether this was the first time; None if there is none.
        """
        return await self._claims.add((request_id, category, sees))

    async def add(self, model: str, version: int, *, wrong: bool) -> None:
        """Count feedback on a version. Calls that come together share a transaction."""
        await self._additions.add((model, version, wrong))

    async def _claim_all(
        self, claims: Sequence[tuple[str, int, Sees]]
    ) -> Sequence[tuple[Answered, bool] | None]:
        async with self._database.write() as session:
            # Locked in one order, so that two gateways never wait for each other.
            query = (
                select(AnsweredRow)
                .where(AnsweredRow.request_id.in_({request_id for request_id, *_ in claims}))
                .order_by(AnsweredRow.request_id)
                .with_for_update()
            )
            rows = {row.request_id: row for row in await session.scalars(query)}
            challengers = await _challengers(session, {row.rollout for row in rows.values()})
            told: list[Told] = []
            found: list[tuple[Answered, bool] | None] = []
            for request_id, category, sees in claims:
                row = rows.get(request_id)
                if row is None or not sees(row.model):
                    found.append(None)
                    continue
                first, row.labelled = not row.labelled, True
                if first:
                    told.append((row.model, row.version, row.category != category))
                found.append((_answered(row, challengers.get(row.rollout)), first))
            await _count(session, told)
        return found

    async def _add_all(self, told: Sequence[Told]) -> Sequence[None]:
        async with self._database.write() as session:
            await _count(session, told)
        return [None] * len(told)

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


async def _challengers(session: AsyncSession, rollouts: Collection[str]) -> dict[str, int]:
    if not rollouts:
        return {}
    query = select(RolloutRow.id, RolloutRow.challenger).where(RolloutRow.id.in_(rollouts))
    return {row.id: row.challenger for row in await session.execute(query)}


def _answered(row: AnsweredRow, challenger: int | None) -> Answered:
    return Answered(
        request_id=row.request_id,
        rollout=row.rollout,
        stage=row.stage,
        step=row.step,
        model=row.model,
        version=row.version,
        category=row.category,
        challenger_category=row.challenger_category,
        at_s=row.at_s,
        by_challenger=challenger == row.version,
    )


async def _count(session: AsyncSession, told: Iterable[Told]) -> None:
    labelled, wrongs = Counter[tuple[str, int]](), Counter[tuple[str, int]]()
    for model, version, wrong in told:
        labelled[model, version] += 1
        wrongs[model, version] += wrong
    if not labelled:
        return
    statement = insert_for(session)(AccuracyRow)
    statement = statement.on_conflict_do_update(
        index_elements=["model", "version"],
        set_={
            "labelled": AccuracyRow.labelled + statement.excluded.labelled,
            "wrong": AccuracyRow.wrong + statement.excluded.wrong,
        },
    )
    # In one order, as above.
    rows = [
        {"model": model, "version": version, "labelled": count, "wrong": wrongs[model, version]}
        for (model, version), count in sorted(labelled.items())
    ]
    await session.execute(statement, rows)
