"""The rows of replays: what a candidate did on recorded requests."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import delete, select, update

from gateway.store.database import Database
from gateway.store.rollout_tables import ReplayRow

# Of each model; the oldest go first.
_KEPT = 100


class Progress(NamedTuple):
    """Requests that were asked, that could not be read, and those asked that have a label."""

    asked: int
    skipped: int
    labelled: int


class ReplayStore:
    """Reads and changes those rows. Every method may raise StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(
        self, replay: str, model: str, *, champion: int, candidate: int, images: int, actor: str
    ) -> None:
        """Note a replay that is about to run, and forget the oldest of its model."""
        now_s = time.time()
        async with self._database.write() as session:
            session.add(
                ReplayRow(
                    id=replay,
                    model=model,
                    champion=champion,
                    candidate=candidate,
                    state="running",
                    images=images,
                    asked=0,
                    skipped=0,
                    labelled=0,
                    created_by=actor,
                    created_at_s=now_s,
                    told_at_s=now_s,
                )
            )
            old = select(ReplayRow.id).where(ReplayRow.model == model)
            old = old.order_by(ReplayRow.created_at_s.desc()).offset(_KEPT)
            if ids := (await session.scalars(old)).all():
                await session.execute(delete(ReplayRow).where(ReplayRow.id.in_(ids)))

    async def tell(
        self,
        replay: str,
        progress: Progress,
        *,
        state: str = "running",
        verdict: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        """Store how far a replay is, or how it ended."""
        now_s = time.time()
        async with self._database.write() as session:
            await session.execute(
                update(ReplayRow)
                .where(ReplayRow.id == replay)
                .values(
                    **progress._asdict(),
                    state=state,
                    verdict=None if verdict is None else dict(verdict),
                    error=error,
                    told_at_s=now_s,
                    finished_at_s=None if state == "running" else now_s,
                )
            )

    async def read(self, replay: str) -> ReplayRow | None:
        """Read one."""
        async with self._database.read() as session:
            return await session.get(ReplayRow, replay)

    async def history(self, model: str, *, limit: int) -> Sequence[ReplayRow]:
        """Read the replays of a model, the newest first."""
        async with self._database.read() as session:
            query = select(ReplayRow).where(ReplayRow.model == model)
            query = query.order_by(ReplayRow.created_at_s.desc(), ReplayRow.id).limit(limit)
            return (await session.scalars(query)).all()
