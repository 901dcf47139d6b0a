"""
The rows of rollouts. A rollout's state is a document here; what it means is known elsewhere.

Every change compares the revision that it was computed from with the one that is stored and does
nothing if they differ, so that of two writers one wins, whichever gateways they are in. A change
that moves traffic raises the registry's generation in the same transaction, which is how every
gateway learns of it; one that only adds a verdict does not.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import delete, func, select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.errors import RolloutInProgress, VersionNotFound
from gateway.store.changes import lock_versions, point_alias, record_change
from gateway.store.database import Database
from gateway.store.rollout_evidence import add_verdict
from gateway.store.rollout_tables import RolloutRow
from gateway.store.tables import AliasRow, VersionRow

_CHAMPION, _CHALLENGER = "champion", "challenger"
_LIVE = ("Progressing", "Waiting", "Promoting")


@dataclass(frozen=True, slots=True)
class Change:
    """
    The next state of a rollout.

    Attributes:
        rollout: Its id.
        expected_revision: Of the state that the next one was computed from.
        state: The next one, with `phase`, `revision`, `finished_at_s`.
        actor: Who does it.
        action: For the audit log; "" if the change is only a verdict and moves no traffic.
        details: For the audit log.
        verdict: The check that led to it, if one did.
    """

    rollout: str
    expected_revision: int
    state: Mapping[str, Any]
    actor: str
    action: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    verdict: Mapping[str, Any] | None = None


class RolloutStore:
    """Reads and changes those rows. Every method may raise StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        state: Mapping[str, Any],
        *,
        loaded_challenger: bool,
        gate: Mapping[str, Any] | None,
        actor: str,
    ) -> None:
        """
        Begin a rollout; the alias `challenger` names its challenger from now on.

        Raises:
            RolloutInProgress: The model has one that has not ended.
            VersionNotFound: One of the two was deleted meanwhile.
        """
        model, challenger = state["model"], state["challenger"]
        try:
            async with self._database.write() as session:
                both = {state["champion"], challenger}
                if gone := both - await lock_versions(session, model, both):
                    raise VersionNotFound(model, min(gone))
                # A failed rollout of the same version must not unload it under this one.
                inherited = await session.execute(
                    update(RolloutRow)
                    .where(
                        RolloutRow.model == model,
                        RolloutRow.challenger == challenger,
                        RolloutRow.loaded_challenger,
                    )
                    .values(loaded_challenger=False)
                    .returning(RolloutRow.id)
                )
                session.add(
                    RolloutRow(
                        id=state["id"],
                        model=model,
                        live_model=model,
                        champion=state["champion"],
                        challenger=challenger,
                        phase=state["phase"],
                        revision=state["revision"],
                        state=dict(state),
                        gate=None if gate is None else dict(gate),
                        loaded_challenger=loaded_challenger or bool(inherited.all()),
                        created_by=actor,
                        created_at_s=state["created_at_s"],
                        finished_at_s=None,
                    )
                )
                await session.flush()
                await point_alias(session, model, _CHALLENGER, challenger)
                details = {"rollout": state["id"], "version": challenger}
                await record_change(session, actor, "rollout_create", model, details)
        except IntegrityError as error:
            raise RolloutInProgress(
                f"Model {model} has a rollout that has not ended: end it first."
            ) from error

    async def read(self, rollout: str) -> RolloutRow | None:
        """Read one rollout."""
        async with self._database.read() as session:
            return await session.get(RolloutRow, rollout)

    async def live(self) -> Sequence[RolloutRow]:
        """Read those that have not ended."""
        async with self._database.read() as session:
            query = select(RolloutRow).where(RolloutRow.live_model.is_not(None))
            return (await session.scalars(query.order_by(RolloutRow.created_at_s))).all()

    async def to_unload(self) -> Sequence[RolloutRow]:
        """Read the failed ones whose challenger was loaded for them and still is."""
        async with self._database.read() as session:
            query = select(RolloutRow).where(
                RolloutRow.phase == "Failed", RolloutRow.loaded_challenger
            )
            return (await session.scalars(query)).all()

    async def data_version(self) -> int | None:
        """See `Database.data_version`."""
        return await self._database.data_version()

    async def mark_unloaded(self, rollout: str) -> None:
        """Take note that a failed rollout's challenger needs no unloading any more."""
        async with self._database.write() as session:
            await session.execute(
                update(RolloutRow).where(RolloutRow.id == rollout).values(loaded_challenger=False)
            )

    async def history(
        self, model: str | None = None, *, limit: int = 100, before: str | None = None
    ) -> Sequence[RolloutRow]:
        """
        Read rollouts of one model or all, the newest first.

        Args:
            model: Only this model's.
            limit: At most so many.
            before: A rollout; only those that follow it in the list. An unknown one: all.
        """
        async with self._database.read() as session:
            place = tuple_(RolloutRow.created_at_s, RolloutRow.id)
            query = select(RolloutRow).order_by(
                RolloutRow.created_at_s.desc(), RolloutRow.id.desc()
            )
            if model is not None:
                query = query.where(RolloutRow.model == model)
            if before is not None and (last := await session.get(RolloutRow, before)) is not None:
                query = query.where(place < (last.created_at_s, last.id))
            return (await session.scalars(query.limit(limit))).all()

    async def count_by_phase(self) -> dict[tuple[str, str], int]:
        """Count all rollouts there ever were, by (model, phase)."""
        async with self._database.read() as session:
            query = select(RolloutRow.model, RolloutRow.phase, func.count())
            found = await session.execute(query.group_by(RolloutRow.model, RolloutRow.phase))
            return {(model, phase): count for model, phase, count in found}

    async def end_unreadable(self, rollout: str, *, reason: str, actor: str) -> None:
        """End a rollout whose stored state cannot be read; the champion has the traffic."""
        async with self._database.write() as session:
            row = await session.get(RolloutRow, rollout, with_for_update=True)
            if row is None or row.live_model is None:
                return
            row.phase, row.finished_at_s = "Failed", time.time()
            row.revision += 1
            row.state = {**row.state, "phase": "Failed", "reason": reason}
            details = {"rollout": row.id, "reason": reason}
            await _free(session, row)
            await record_change(session, actor, "rollout_unreadable", row.model, details)

    async def save(self, change: Change) -> bool:
        """Store the next state; False, and nothing is changed, if somebody was faster."""
        async with self._database.write() as session:
            return await _save(session, change) is not None

    async def move_champion(self, change: Change, refusal: Change) -> bool | None:
        """
        Let `champion` name the challenger, if it still names the rollout's champion, and end the
        rollout, in one transaction.

        Args:
            change: To the state that has succeeded.
            refusal: To the failed one, if the alias names something else.

        Returns:
            Whether the alias moved; None if somebody was faster.
        """
        async with self._database.write() as session:
            row = await session.get(RolloutRow, change.rollout, with_for_update=True)
            if row is None:
                return None
            alias = await session.get(AliasRow, (row.model, _CHAMPION), with_for_update=True)
            known = await session.get(VersionRow, (row.model, row.challenger)) is not None
            if alias is None or not known or alias.version not in {row.champion, row.challenger}:
                return None if await _save(session, refusal) is None else False
            if await _save(session, change) is None:
                return None
            if alias.version == row.champion:
                await point_alias(session, row.model, _CHAMPION, row.challenger)
                details = {
                    "alias": _CHAMPION,
                    "from": row.champion,
                    "to": row.challenger,
                    **change.details,
                }
                await record_change(session, change.actor, "alias", row.model, details)
            return True

    async def note(
        self, rollout: str, model: str, *, action: str, details: Mapping[str, Any], actor: str
    ) -> None:
        """Write an audit row about something that was refused."""
        async with self._database.write() as session:
            await record_change(session, actor, action, model, {"rollout": rollout, **details})


async def _save(session: AsyncSession, change: Change) -> RolloutRow | None:
    row = await session.get(RolloutRow, change.rollout, with_for_update=True)
    if row is None or row.revision != change.expected_revision:
        return None
    state = dict(change.state)
    row.state, row.revision, row.phase = state, state["revision"], state["phase"]
    row.finished_at_s = state["finished_at_s"]
    if change.verdict is not None:
        await add_verdict(session, row.id, change.verdict)
    if row.phase not in _LIVE and row.live_model is not None:
        await _free(session, row)
    if change.action:
        details = {"rollout": row.id, **change.details, "at_s": time.time()}
        await record_change(session, change.actor, change.action, row.model, details)
    return row


async def _free(session: AsyncSession, row: RolloutRow) -> None:
    """Let go of what a live rollout holds: its model, and the alias of its challenger."""
    row.live_model = None
    await session.execute(
        delete(AliasRow).where(
            AliasRow.model == row.model,
            AliasRow.alias == _CHALLENGER,
            AliasRow.version == row.challenger,
        )
    )
