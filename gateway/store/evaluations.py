"""The rows of evaluations: the labelled set of each model, and what versions answered on it."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select

from gateway.store.database import Database
from gateway.store.rollout_tables import EvaluationRow, EvaluationSetRow


class EvaluationStore:
    """Reads and changes those rows. Every method may raise StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put_set(self, model: str, digest: str, *, images: int, classes: int) -> None:
        """Make a set the one that a model's versions are measured on."""
        async with self._database.write() as session:
            await session.merge(
                EvaluationSetRow(
                    model=model,
                    digest=digest,
                    images=images,
                    classes=classes,
                    created_at_s=time.time(),
                )
            )

    async def sets(self) -> Sequence[EvaluationSetRow]:
        """Read every model's set."""
        async with self._database.read() as session:
            return (await session.scalars(select(EvaluationSetRow))).all()

    async def set_of(self, model: str) -> EvaluationSetRow | None:
        """Read a model's set."""
        async with self._database.read() as session:
            return await session.get(EvaluationSetRow, model)

    async def results(self, model: str, digest: str) -> dict[int, EvaluationRow]:
        """Read what a model's versions did on a set, by version."""
        async with self._database.read() as session:
            query = select(EvaluationRow).where(
                EvaluationRow.model == model, EvaluationRow.digest == digest
            )
            return {row.version: row for row in await session.scalars(query)}

    async def evaluated(self, model: str, digest: str) -> set[int]:
        """Read which versions of a model have a result on a set."""
        async with self._database.read() as session:
            query = select(EvaluationRow.version).where(
                EvaluationRow.model == model, EvaluationRow.digest == digest
            )
            return set(await session.scalars(query))

    async def put_result(
        self,
        model: str,
        version: int,
        digest: str,
        *,
        error: str | None = None,
        answers: Sequence[int] | None = None,
        labels: Sequence[int] | None = None,
        evaluation: Mapping[str, Any] | None = None,
    ) -> None:
        """Store what a version did on a set, or why it could not be tried."""
        async with self._database.write() as session:
            await session.merge(
                EvaluationRow(
                    model=model,
                    version=version,
                    digest=digest,
                    state="failed" if error else "done",
                    error=error,
                    answers=None if answers is None else list(answers),
                    labels=None if labels is None else list(labels),
                    evaluation=None if evaluation is None else dict(evaluation),
                    finished_at_s=time.time(),
                )
            )
