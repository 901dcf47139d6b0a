"""
Observe, decide, act: what moves a rollout on when nobody is looking.

One gateway of several runs it, the one that holds the lease in the database; if that one dies, the
lease runs out and another goes on from what is stored. Two that believe to hold it do no harm:
every change is compared with the revision that it was made from.

What a state asks for (`actions_for`) is done again after every start. Routes need nothing: every
gateway makes its own from the stored state. The alias is moved in one transaction with the end of
the rollout.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import reduce

import structlog
from pydantic import ValidationError

from gateway.errors import GatewayError, ModelNotLoaded, StoreUnavailable
from gateway.registry.lifecycle import Lifecycle
from gateway.registry.registry import Registry
from gateway.registry.versions import CHAMPION
from gateway.rollouts.live.recorder import Recorder
from gateway.rollouts.state.rollout import (
    Phase,
    Rollout,
    Transition,
    advance,
    promoted,
    provider_failed,
    refused,
    roll_back,
)
from gateway.rollouts.statistics.analysis import analyse
from gateway.rollouts.statistics.observations import Observations
from gateway.rollouts.statistics.verdict import Verdict
from gateway.store.cached_read import CachedRead
from gateway.store.feedback import FeedbackStore
from gateway.store.outage import StoreOutage
from gateway.store.rollout_tables import RolloutRow
from gateway.store.rollouts import Change, RolloutStore

log = structlog.get_logger(__name__)

ACTOR = "rollout-controller"
_LEASE = "rollouts"
_FORGET_EVERY_S = 600.0

PROMOTE, ROLL_BACK, STEP, WAIT = (
    "rollout_promote",
    "rollout_roll_back",
    "rollout_step",
    "rollout_wait",
)


class Controller:
    """Moves rollouts on. `apply` and `finish_promotion` serve people's commands, too."""

    def __init__(
        self,
        store: RolloutStore,
        feedback: FeedbackStore,
        registry: Registry,
        lifecycle: Lifecycle,
        recorder: Recorder,
        *,
        poll_s: float,
        lease_s: float,
        unload_after_s: float,
        feedback_window_s: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._feedback = feedback
        self._registry = registry
        self._lifecycle = lifecycle
        self._recorder = recorder
        self._poll_s = poll_s
        self._lease_s = lease_s
        self._unload_after_s = unload_after_s
        self._feedback_window_s = feedback_window_s
        self._now = now
        self._forgotten_at_s = 0.0
        self._leased_until_s = 0.0
        self._cached = CachedRead(store.data_version, self._to_do)
        # A promotion may wait for a load for minutes: each rollout is worked on by itself.
        self._at_work: dict[str, asyncio.Task[None]] = {}

    async def follow(self) -> None:
        """Move all rollouts on, for ever, while this gateway holds the lease."""
        outage = StoreOutage("rollouts_wait_for_the_store", "rollouts_go_on")
        try:
            while True:
                with outage.tolerated():
                    if await self._holds_lease():
                        await self._round()
                await asyncio.sleep(self._poll_s)
        finally:
            tasks = list(self._at_work.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            try:
                await self._store.release_lease(_LEASE, self._recorder.gateway)
            except StoreUnavailable:
                log.info("rollout_lease_runs_out_by_itself")

    async def _holds_lease(self) -> bool:
        """Extend the lease when half of it is over: each time is a write to the database."""
        now, owner = self._now(), self._recorder.gateway
        if now < self._leased_until_s - self._lease_s / 2:
            return True
        held = await self._store.hold_lease(_LEASE, owner, now_s=now, for_s=self._lease_s)
        self._leased_until_s = now + self._lease_s if held else 0.0
        return held

    async def _round(self) -> None:
        live, failed = await self._cached.get()
        for row in live:
            self._start(row, self._move_on)
        before_s = self._now() - self._unload_after_s
        for row in failed:
            if row.finished_at_s is not None and row.finished_at_s < before_s:
                self._start(row, self._unload_failed)
        if self._now() - self._forgotten_at_s > _FORGET_EVERY_S:
            self._forgotten_at_s = self._now()
            await self._feedback.forget(older_than_s=self._feedback_window_s)

    async def _to_do(self) -> tuple[Sequence[RolloutRow], Sequence[RolloutRow]]:
        return await self._store.live(), await self._store.to_unload()

    def _start(self, row: RolloutRow, work: Callable[[RolloutRow], Awaitable[None]]) -> None:
        """Do what there is to do for a rollout, unless that is still going on."""
        if row.id in self._at_work:
            return
        task = asyncio.create_task(_alone(row, work))
        self._at_work[row.id] = task
        task.add_done_callback(lambda _: self._at_work.pop(row.id, None))

    async def _move_on(self, row: RolloutRow) -> None:
        rollout, now = Rollout.from_json(row.state), self._now()
        if rollout.phase is Phase.PROMOTING:
            await self.finish_promotion(rollout, actor=ACTOR)
        elif (why := await self._unfit(rollout)) is not None:
            await self.apply(rollout, roll_back(rollout, now, why), action=ROLL_BACK, actor=ACTOR)
        elif rollout.due(now):
            await self._check(rollout)
        elif now >= rollout.deadline_at_s:
            await self.apply(rollout, advance(rollout, None, now), action=WAIT, actor=ACTOR)

    async def _unfit(self, rollout: Rollout) -> str | None:
        """Tell why a rollout cannot go on, whatever the evidence; None if it can."""
        model = (await self._registry.refresh()).models.get(rollout.model)
        if model is None or rollout.challenger not in model.versions:
            return f"Version {rollout.challenger} is gone."
        if (champion := model.aliases.get(CHAMPION)) != rollout.champion:
            return f"The alias {CHAMPION} was moved to version {champion} by someone else."
        if (why := model.quarantined.get(rollout.challenger)) is not None:
            return f"Version {rollout.challenger} is in quarantine: {why}"
        if model.desired and rollout.challenger not in model.desired:
            return f"Version {rollout.challenger} was unloaded."
        return None

    async def _check(self, rollout: Rollout) -> None:
        now = self._now()
        try:
            observed = await self.observe(rollout)
        except ValidationError as error:
            transition = provider_failed(
                rollout, f"{error.error_count()} counts are unreadable", now
            )
            await self.apply(rollout, transition, action="", actor=ACTOR)
            return
        # Some milliseconds of arithmetic, which the requests on the event loop need not wait for.
        verdict = await asyncio.to_thread(judge, rollout, observed, now)
        transition = advance(rollout, verdict, now)
        await self.apply(
            rollout,
            transition,
            action=_action(rollout, transition[0]),
            actor=ACTOR,
            verdict=verdict,
        )

    async def observe(self, rollout: Rollout) -> Observations:
        """
        Add up what every gateway has counted in the current step; this one's counts are fresh.

        Raises:
            pydantic.ValidationError: Stored counts cannot be read.
            StoreUnavailable: The store is away.
        """
        await self._recorder.flush()
        rows = await self._store.observations(rollout.id, rollout.stage, rollout.step)
        parts = [Observations.from_json(counts) for counts, _ in rows]
        return reduce(lambda one, other: one + other, parts, Observations())

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

    async def _unload_failed(self, row: RolloutRow) -> None:
        """Unload a challenger that was loaded for a rollout which failed; nobody is asking it."""
        model = (await self._registry.refresh()).models.get(row.model)
        named = model is not None and row.challenger in model.aliases.values()
        if model is not None and row.challenger in model.desired and not named:
            try:
                await self._lifecycle.unload(row.model, row.challenger, actor=ACTOR)
            except ModelNotLoaded:
                log.info("challenger_was_unloaded", rollout=row.id)
        await self._store.mark_unloaded(row.id)


async def _alone(row: RolloutRow, work: Callable[[RolloutRow], Awaitable[None]]) -> None:
    """Let a rollout that is stuck hold up no other one, and not end the controller."""
    try:
        await work(row)
    except GatewayError as error:
        log.warning("rollout_stuck", rollout=row.id, reason=error.detail)
    except Exception:
        log.exception("rollout_stuck", rollout=row.id)


def judge(rollout: Rollout, observed: Observations, now: float) -> Verdict:
    """Analyse the current step of a rollout."""
    plan = rollout.plan
    return analyse(
        observed,
        metrics=plan.metrics,
        strategy=rollout.current_stage.strategy,
        comparisons=plan.comparisons,
        min_samples=plan.min_samples,
        alpha=plan.alpha,
        stage=rollout.stage,
        step=rollout.step,
        now=now,
    )


def _action(before: Rollout, after: Rollout) -> str:
    """Name a change for the audit log; "" if only a verdict was added."""
    if (after.phase, after.stage, after.step) == (before.phase, before.stage, before.step):
        return ""
    return {Phase.PROMOTING: PROMOTE, Phase.FAILED: ROLL_BACK, Phase.WAITING: WAIT}.get(
        after.phase, STEP
    )
