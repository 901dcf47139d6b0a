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

from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.errors import RolloutInProgress, VersionNotFound
from gateway.store.database import Database
from gateway.store.rollout_tables import (
    DisagreementRow,
    LeaseRow,
    ObservationRow,
    RolloutRow,
    VerdictRow,
)
from gateway.store.tables import AliasRow, VersionRow
from gateway.store.versions import point_alias, record_change

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


@dataclass(frozen=True, slots=True)
class Sample:
    """
    A request that champion and challenger answered differently.

    Attributes:
        request_id: The request.
        at_s: When, Unix seconds.
        image_digest: Of the image's file, "sha256:…".
        image_kept: Whether the image itself is stored.
        champion, challenger: Category and largest scores of each.
    """

    request_id: str
    at_s: float
    image_digest: str
    image_kept: bool
    champion: Mapping[str, Any]
    challenger: Mapping[str, Any]


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
            VersionNotFound: The challenger was deleted meanwhile.
        """
        model, challenger = state["model"], state["challenger"]
        try:
            async with self._database.write() as session:
                if await session.get(VersionRow, (model, challenger)) is None:
                    raise VersionNotFound(model, challenger)
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

    async def history(self, model: str | None = None, *, limit: int = 100) -> Sequence[RolloutRow]:
        """Read rollouts of one model or all, the newest first."""
        async with self._database.read() as session:
            query = select(RolloutRow).order_by(RolloutRow.created_at_s.desc()).limit(limit)
            if model is not None:
                query = query.where(RolloutRow.model == model)
            return (await session.scalars(query)).all()

    async def count_by_phase(self) -> dict[tuple[str, str], int]:
        """Count all rollouts there ever were, by (model, phase)."""
        async with self._database.read() as session:
            query = select(RolloutRow.model, RolloutRow.phase, func.count())
            found = await session.execute(query.group_by(RolloutRow.model, RolloutRow.phase))
            return {(model, phase): count for model, phase, count in found}

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

    async def verdicts(self, rollout: str, *, limit: int) -> list[dict[str, Any]]:
        """Read the newest verdicts of a rollout, the oldest of them first."""
        async with self._database.read() as session:
            query = select(VerdictRow.verdict).where(VerdictRow.rollout == rollout)
            newest = (
                await session.scalars(query.order_by(VerdictRow.id.desc()).limit(limit))
            ).all()
            return list(reversed(newest))

    async def observations(
        self, rollout: str, stage: int, step: int
    ) -> Sequence[tuple[dict[str, Any], int]]:
        """Read the counts of a step, one document for each gateway, and how much was dropped."""
        async with self._database.read() as session:
            query = select(ObservationRow.counts, ObservationRow.dropped).where(
                ObservationRow.rollout == rollout,
                ObservationRow.stage == stage,
                ObservationRow.step == step,
            )
            return [(counts, dropped) for counts, dropped in await session.execute(query)]

    async def put_observations(
        self,
        gateway: str,
        counts: Mapping[tuple[str, int, int], tuple[Mapping[str, Any], int]],
        disagreements: Sequence[Mapping[str, Any]],
    ) -> None:
        """
        Store what a gateway has counted since it started, by rollout, stage and step, in place of
        what it stored before; and new samples of disagreement.
        """
        async with self._database.write() as session:
            for (rollout, stage, step), (document, dropped) in counts.items():
                await session.merge(
                    ObservationRow(
                        rollout=rollout,
                        stage=stage,
                        step=step,
                        gateway=gateway,
                        counts=dict(document),
                        dropped=dropped,
                    )
                )
            session.add_all(DisagreementRow(**sample) for sample in disagreements)

    async def samples(self, rollout: str, *, limit: int) -> Sequence[Sample]:
        """Read samples of requests that the two versions answered differently, the newest first."""
        async with self._database.read() as session:
            # Not the images: each may have megabytes.
            query = select(
                DisagreementRow.request_id,
                DisagreementRow.at_s,
                DisagreementRow.image_digest,
                DisagreementRow.image.is_not(None),
                DisagreementRow.champion,
                DisagreementRow.challenger,
            ).where(DisagreementRow.rollout == rollout)
            query = query.order_by(DisagreementRow.id.desc()).limit(limit)
            return [Sample(*row) for row in await session.execute(query)]

    async def sample_image(self, rollout: str, digest: str) -> bytes | None:
        """Read the image of a sample; None if there is none, or if it was not kept."""
        async with self._database.read() as session:
            query = select(DisagreementRow.image).where(
                DisagreementRow.rollout == rollout,
                DisagreementRow.image_digest == digest,
                DisagreementRow.image.is_not(None),
            )
            return (await session.scalars(query.limit(1))).first()

    async def hold_lease(self, name: str, owner: str, *, now_s: float, for_s: float) -> bool:
        """Take or extend a lease that is free, run out or one's own; False if it is another's."""
        try:
            async with self._database.write() as session:
                row = await session.get(LeaseRow, name, with_for_update=True)
                if row is None:
                    session.add(LeaseRow(name=name, owner=owner, until_s=now_s + for_s))
                    return True
                if row.owner != owner and row.until_s > now_s:
                    return False
                row.owner, row.until_s = owner, now_s + for_s
                return True
        except IntegrityError:
            return False

    async def release_lease(self, name: str, owner: str) -> None:
        """Give a lease back, if it is the owner's."""
        async with self._database.write() as session:
            await session.execute(
                delete(LeaseRow).where(LeaseRow.name == name, LeaseRow.owner == owner)
            )


async def _save(session: AsyncSession, change: Change) -> RolloutRow | None:
    row = await session.get(RolloutRow, change.rollout, with_for_update=True)
    if row is None or row.revision != change.expected_revision:
        return None
    state = dict(change.state)
    row.state, row.revision, row.phase = state, state["revision"], state["phase"]
    row.finished_at_s = state["finished_at_s"]
    if change.verdict is not None:
        session.add(
            VerdictRow(
                rollout=row.id,
                at_s=change.verdict["at_s"],
                outcome=change.verdict["outcome"],
                verdict=dict(change.verdict),
            )
        )
    if row.phase not in _LIVE and row.live_model is not None:
        row.live_model = None
        await session.execute(
            delete(AliasRow).where(
                AliasRow.model == row.model,
                AliasRow.alias == _CHALLENGER,
                AliasRow.version == row.challenger,
            )
        )
    if change.action:
        details = {"rollout": row.id, **change.details, "at_s": time.time()}
        await record_change(session, change.actor, change.action, row.model, details)
    return row
