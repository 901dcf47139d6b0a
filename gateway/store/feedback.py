"""The rows of feedback: answers that wait for their true class, and accuracy by version."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.store.database import Database, insert_for
from gateway.store.group_commit import GroupCommit
from gateway.store.rollout_tables import AccuracyRow, AnsweredRow, JudgedRow, RolloutRow

# Below the number of parameters that SQLite takes in one statement.
_AT_ONCE = 3_000
Sees = Callable[[str], bool]
"""Whether a model exists for a caller."""
CategoryOf = Callable[[str, int], int]
"""The true class, in the numbering of a version of a model."""


class FeedbackEntry(NamedTuple):
    """FeedbackEntry on one answer: the request, the model, the version, whether it was wrong."""

    request_id: str
    model: str
    version: int
    wrong: bool


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """
    A request of a rollout that was answered by `version`; in shadow, by the challenger too. Both
    categories are in the numbering of `version`. `caller` names who asked, if the caller did.
    """

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
    caller: str | None = None


class FeedbackStore:
    """Reads and changes those rows. Every method may raise StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._claims = GroupCommit(self._claim_all)
        self._additions = GroupCommit(self._add_all)

    async def put_answers(self, answers: Iterable[StoredAnswer]) -> None:
        """Store answers; of those with the same id the first one stands."""
        rows = []
        for answer in answers:
            row = asdict(answer)
            del row["by_challenger"]
            rows.append(row)
        for start in range(0, len(rows), _AT_ONCE):
            async with self._database.write() as session:
                statement = insert_for(session)(AnsweredRow).on_conflict_do_nothing()
                await session.execute(statement, rows[start : start + _AT_ONCE])

    async def claim(
        self, request_id: str, category_of: CategoryOf, sees: Sees = lambda _: True
    ) -> tuple[StoredAnswer, bool] | None:
        """
        Find an answer of a model that the caller sees, mark it as judged, and count it for its
        version's accuracy if it was not. Calls that come together share a transaction.

        Returns:
            The answer, and whether this was the first time; None if there is none.
        """
        return await self._claims.add((request_id, category_of, sees))

    async def add(self, request_id: str, model: str, version: int, *, wrong: bool) -> bool:
        """
        Count feedback on an answer that is not stored. Calls that come together share a
        transaction.

        Returns:
            Whether this was the first feedback on the request.
        """
        return await self._additions.add(FeedbackEntry(request_id, model, version, wrong))

    async def _claim_all(
        self, claims: Sequence[tuple[str, CategoryOf, Sees]]
    ) -> Sequence[tuple[StoredAnswer, bool] | None]:
        async with self._database.write() as session:
            query = select(AnsweredRow).where(
                AnsweredRow.request_id.in_({request_id for request_id, *_ in claims})
            )
            stored = {row.request_id: row for row in await session.scalars(query)}
            rows = [
                row if (row := stored.get(request_id)) is not None and sees(row.model) else None
                for request_id, _, sees in claims
            ]
            challengers = await _challengers(session, {row.rollout for row in stored.values()})
            entries = [
                FeedbackEntry(
                    request_id,
                    row.model,
                    row.version,
                    row.category != category_of(row.model, row.version),
                )
                for (request_id, category_of, _), row in zip(claims, rows, strict=True)
                if row is not None
            ]
            firsts = iter(await _count_once(session, entries))
        return [
            None if row is None else (_answered(row, challengers.get(row.rollout)), next(firsts))
            for row in rows
        ]

    async def _add_all(self, entries: Sequence[FeedbackEntry]) -> Sequence[bool]:
        async with self._database.write() as session:
            return await _count_once(session, entries)

    async def accuracy(self, model: str) -> Sequence[AccuracyRow]:
        """Read the feedback on a model's versions."""
        async with self._database.read() as session:
            query = select(AccuracyRow).where(AccuracyRow.model == model)
            return (await session.scalars(query.order_by(AccuracyRow.version))).all()

    async def models_with_feedback(self, *, within_s: float) -> frozenset[str]:
        """Name the models that somebody gave feedback on in the last so many seconds."""
        async with self._database.read() as session:
            query = select(AccuracyRow.model).where(AccuracyRow.last_at_s > time.time() - within_s)
            return frozenset(await session.scalars(query.distinct()))

    async def forget(self, *, older_than_s: float, keep: int) -> None:
        """Delete what is older than so many seconds, and all but the newest `keep` answers."""
        oldest_s = time.time() - older_than_s
        for table in (AnsweredRow, JudgedRow):
            async with self._database.write() as session:
                newest = select(table.at_s).order_by(table.at_s.desc()).offset(keep).limit(1)
                beyond_s = (await session.scalars(newest)).first()
                limit_s = oldest_s if beyond_s is None else max(oldest_s, beyond_s)
                await session.execute(delete(table).where(table.at_s <= limit_s))


async def _challengers(session: AsyncSession, rollouts: Collection[str]) -> dict[str, int]:
    if not rollouts:
        return {}
    query = select(RolloutRow.id, RolloutRow.challenger).where(RolloutRow.id.in_(rollouts))
    return {row.id: row.challenger for row in await session.execute(query)}


def _answered(row: AnsweredRow, challenger: int | None) -> StoredAnswer:
    return StoredAnswer(
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
        caller=row.caller,
    )


async def _count_once(session: AsyncSession, entries: Sequence[FeedbackEntry]) -> list[bool]:
    """Count feedback for its versions; for each, whether it was the first on its request."""
    if not entries:
        return []
    now_s = time.time()
    # In one order, so that two gateways never wait for each other.
    ids = sorted({each.request_id for each in entries})
    statement = (
        insert_for(session)(JudgedRow)
        .values([{"request_id": each, "at_s": now_s} for each in ids])
        .on_conflict_do_nothing()
        .returning(JudgedRow.request_id)
    )
    fresh = set(await session.scalars(statement))
    firsts = []
    for each in entries:
        firsts.append(each.request_id in fresh)
        fresh.discard(each.request_id)
    counted = [each for each, first in zip(entries, firsts, strict=True) if first]
    await _count(session, counted, now_s)
    return firsts


async def _count(session: AsyncSession, entries: Iterable[FeedbackEntry], now_s: float) -> None:
    labelled, wrongs = Counter[tuple[str, int]](), Counter[tuple[str, int]]()
    for each in entries:
        labelled[each.model, each.version] += 1
        wrongs[each.model, each.version] += each.wrong
    if not labelled:
        return
    statement = insert_for(session)(AccuracyRow)
    statement = statement.on_conflict_do_update(
        index_elements=["model", "version"],
        set_={
            "labelled": AccuracyRow.labelled + statement.excluded.labelled,
            "wrong": AccuracyRow.wrong + statement.excluded.wrong,
            "last_at_s": statement.excluded.last_at_s,
        },
    )
    # In one order, as above.
    rows = [
        {
            "model": model,
            "version": version,
            "labelled": count,
            "wrong": wrongs[model, version],
            "last_at_s": now_s,
        }
        for (model, version), count in sorted(labelled.items())
    ]
    await session.execute(statement, rows)
