"""
Carry out what a rollout's state asks for, and store it: for the controller, and for people.

Routes need nothing: every gateway makes its own from the stored state. The alias is moved in one
transaction with the end of the rollout.
"""

import time
from collections.abc import Callable

import structlog

from gateway.registry.lifecycle import Lifecycle
from gateway.registry.registry import Registry
from gateway.rollouts.state.rollout import Phase, Rollout
from gateway.rollouts.state.transitions import Transition, promoted, refused
from gateway.rollouts.statistics.verdict import Verdict
from gateway.store.rollouts import Change, RolloutStore

log = structlog.get_logger(__name__)

PROMOTE, ROLL_BACK, STEP, WAIT = (
    "rollout_promote",
    "rollout_roll_back",
    "rollout_step",
    "rollout_wait",
)


class Changes:
    """Stores the next state of a rollout, if nobody was faster, and does what it asks for."""

    def __init__(
        self,
        store: RolloutStore,
        registry: Registry,
        lifecycle: Lifecycle,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._registry = registry
        self._lifecycle = lifecycle
        self._now = now

    async def apply(
        self,
        rollout: Rollout,
        transition: Transition,
        *,
        action: str,
        actor: str,
        verdict: Verdict | None = None,
    ) -> Rollout | None:
        """
        Store a transition and do what it asks for.

        Args:
            rollout: The state that the transition was made from.
            transition: The next one.
            action: For the audit log; "" if no traffic moves.
            actor: Who does it.
            verdict: The check behind it, if there was one.

        Returns:
            The rollout as it is now; None if somebody changed it meanwhile.
        """
        after = transition[0]
        if after == rollout:
            return rollout
        details = {"reason": after.reason, "phase": after.phase, "weight": after.weight}
        if verdict is not None:
            details["evidence"] = verdict.sentence
        saved = await self._store.save(
            Change(
                rollout=rollout.id,
                expected_revision=rollout.revision,
                state=after.to_json(),
                actor=actor,
                action=action,
                details=details,
                verdict=None if verdict is None else verdict.to_json(),
            )
        )
        if not saved:
            return None
        if action:
            await self._registry.refresh()
            log.info(
                action,
                rollout=after.id,
                model=after.model,
                phase=after.phase,
                weight=after.weight,
                reason=after.reason,
            )
        if after.phase is Phase.PROMOTING:
            # If somebody else finished it in between, it is promoted all the same.
            return await self.finish_promotion(after, actor=actor) or after
        return after

    async def finish_promotion(self, rollout: Rollout, *, actor: str) -> Rollout | None:
        """
        Move the alias of a rollout that is Promoting, and end it. Doing it twice does no harm.

        Returns:
            The rollout as it is now; None if somebody changed it meanwhile.
        """
        now = self._now()
        await self._lifecycle.load(rollout.model, rollout.challenger, actor=actor)
        after, _ = promoted(rollout, now)
        reason = "Someone else moved the champion's alias, or the version is gone."
        failed, _ = refused(rollout, now, reason)
        evidence = rollout.verdicts[-1].sentence if rollout.verdicts else ""
        details = {"rollout": rollout.id, "reason": rollout.reason, "evidence": evidence}
        moved = await self._store.move_champion(
            Change(
                rollout=rollout.id,
                expected_revision=rollout.revision,
                state=after.to_json(),
                actor=actor,
                action="rollout_promoted",
                details=details,
            ),
            Change(
                rollout=rollout.id,
                expected_revision=rollout.revision,
                state=failed.to_json(),
                actor=actor,
                action="rollout_refused",
                details={**details, "reason": reason},
            ),
        )
        await self._registry.refresh()
        log.info("rollout_promoted", rollout=rollout.id, model=rollout.model, moved=moved)
        if moved is None:
            return None
        return after if moved else failed


def action_of(before: Rollout, after: Rollout) -> str:
    """Name a change for the audit log; "" if only a verdict was added."""
    if (after.phase, after.stage, after.step) == (before.phase, before.stage, before.step):
        return ""
    return {Phase.PROMOTING: PROMOTE, Phase.FAILED: ROLL_BACK, Phase.WAITING: WAIT}.get(
        after.phase, STEP
    )
