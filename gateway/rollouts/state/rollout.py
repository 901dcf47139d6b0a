"""
A rollout: one attempt to replace a champion, as a state machine without I/O.

    begin ─▶ Progressing ──Successful in every step──▶ Promoting ──alias moved──▶ Succeeded
                │  ▲   │                                 ▲    │
     deadline,  │  │   └───Failed (threshold times)──┐   │    └──alias refused──┐
     approval   ▼  │ resume                          ▼   │                     ▼
             Waiting ───────────Failed──────────▶ Failed │                   Failed
                └────────────────────promote (a human)───┘

- A step passes when its verdict is Successful and it has lasted an interval. A canary's step of 100
  is the promotion itself: with nothing left to compare with, nothing could be judged.
- Failed checks only add up (Flagger); at `threshold` the rollout is Failed and the weight 0 at
  once, also while it is paused or Waiting: nobody has to be awake for a roll back.
- No data is Inconclusive. A step that has not been decided by its deadline waits for a human; so
  does a decided rollout whose plan says not to promote by itself.
- Errors of the analysis itself (the provider) are counted apart; four in a row wait for a human.

Every function takes the rollout and the time and returns a new rollout with what is to be done. The
actions follow from the state alone (`actions_for`), so that after a crash they are done again
without harm. A verdict that was seen already, or that judges another step, changes nothing.

Sources: Flagger, "Deployment strategies" (interval, threshold, stepWeights); Argo Rollouts,
"Analysis" (Inconclusive pauses, consecutiveErrorLimit 4).
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from gateway.errors import RolloutConflict, RolloutInvalid
from gateway.rollouts.state.plan import Plan, Stage
from gateway.rollouts.state.routing import Route
from gateway.rollouts.statistics.metrics import Strategy
from gateway.rollouts.statistics.verdict import Outcome, Verdict
from gateway.rollouts.stored import Stored

HISTORY = 20
CONSECUTIVE_PROVIDER_ERRORS = 4


class Phase(StrEnum):
    """Where a rollout stands. Succeeded and Failed are final."""

    PROGRESSING = "Progressing"
    WAITING = "Waiting"
    PROMOTING = "Promoting"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Rollout(Stored):
    """
    The state. Times are Unix seconds.

    Attributes:
        id: Its own; salts the split.
        model: The model's name.
        champion: Version that had the traffic when it began.
        challenger: Version that it tries.
        plan: What was asked for.
        phase: Where it stands.
        paused: A human holds it; it is still judged and can still fail.
        stage: Position of the current stage.
        step: Position of the current step among the stage's judged steps.
        failed_checks: So far, over all steps.
        provider_errors: Failures of the analysis itself, over all steps.
        consecutive_provider_errors: Those since the last verdict.
        created_at_s: When it began.
        step_started_at_s: When the current step began; what is judged was observed since.
        deadline_at_s: When an undecided step begins to wait for a human.
        checked_at_s: Time of the last verdict that counted.
        finished_at_s: When it became Succeeded or Failed.
        reason: Why it is in its phase, for people.
        verdicts: The last twenty.
        warnings: What everybody who looks at it should know, for people.
        revision: Grows with every change; for compare-and-swap.
    """

    id: str
    model: str
    champion: int
    challenger: int
    plan: Plan
    created_at_s: float
    step_started_at_s: float
    deadline_at_s: float
    phase: Phase = Phase.PROGRESSING
    paused: bool = False
    stage: int = 0
    step: int = 0
    failed_checks: int = 0
    provider_errors: int = 0
    consecutive_provider_errors: int = 0
    checked_at_s: float | None = None
    finished_at_s: float | None = None
    reason: str = "Begun."
    verdicts: tuple[Verdict, ...] = ()
    warnings: tuple[str, ...] = ()
    revision: int = 0

    @property
    def live(self) -> bool:
        """Not finished."""
        return self.phase not in {Phase.SUCCEEDED, Phase.FAILED}

    @property
    def current_stage(self) -> Stage:
        """The stage it is in, or ended in."""
        return self.plan.stages[self.stage]

    @property
    def weight(self) -> float:
        """Share of callers that the challenger answers, 0 to 100."""
        if self.phase is Phase.SUCCEEDED:
            return 100.0
        if self.phase is Phase.FAILED or self.current_stage.strategy is Strategy.SHADOW:
            return 0.0
        return self.current_stage.judged_steps[self.step]

    @property
    def mirror_share(self) -> float:
        """Share of requests copied to the challenger, 0 to 100."""
        if not self.live or self.current_stage.strategy is not Strategy.SHADOW:
            return 0.0
        return self.current_stage.judged_steps[self.step]

    def due(self, now: float) -> bool:
        """Whether it is time for the next check."""
        last = self.step_started_at_s if self.checked_at_s is None else self.checked_at_s
        since = max(last, self.step_started_at_s)
        judged = self.phase in {Phase.PROGRESSING, Phase.WAITING}
        return judged and now - since >= self.plan.interval_s

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types, with `weight` and `mirror_share` for readers."""
        return Stored.to_json(self) | {"weight": self.weight, "mirror_share": self.mirror_share}


@dataclass(frozen=True, slots=True)
class SetRoute:
    """Traffic goes like this from now on."""

    route: Route


@dataclass(frozen=True, slots=True)
class MoveAlias:
    """Move the champion's alias if it still points to `expected`; then `promoted` or `refused`."""

    model: str
    expected: int
    version: int


Action = SetRoute | MoveAlias
Transition = tuple[Rollout, tuple[Action, ...]]


def begin(
    *, rollout_id: str, model: str, champion: int, challenger: int, plan: Plan, now: float
) -> Transition:
    """
    Begin the first step.

    Raises:
        RolloutInvalid: Champion and challenger are the same version.
    """
    if champion == challenger:
        raise RolloutInvalid(f"Version {champion} is the champion already.")
    rollout = Rollout(
        id=rollout_id,
        model=model,
        champion=champion,
        challenger=challenger,
        plan=plan,
        created_at_s=now,
        step_started_at_s=now,
        deadline_at_s=now + plan.deadline_s,
    )
    return rollout, actions_for(rollout)


def actions_for(rollout: Rollout) -> tuple[Action, ...]:
    """What the state asks for. Doing it twice does no harm; do it after every start."""
    if rollout.phase is Phase.SUCCEEDED:
        return (SetRoute(Route(rollout.model, rollout.challenger)),)
    if rollout.phase is Phase.FAILED:
        return (SetRoute(Route(rollout.model, rollout.champion)),)
    route = Route(
        model=rollout.model,
        champion=rollout.champion,
        challenger=rollout.challenger,
        weight=rollout.weight,
        mirror_share=rollout.mirror_share,
        salt=rollout.id,
    )
    if rollout.phase is Phase.PROMOTING:
        return SetRoute(route), MoveAlias(rollout.model, rollout.champion, rollout.challenger)
    return (SetRoute(route),)


def advance(rollout: Rollout, verdict: Verdict | None, now: float) -> Transition:
    """
    Take one verdict, or only the time, into account.

    Args:
        rollout: As stored.
        verdict: Of the current step; None if there is no new one.
        now: Unix seconds.

    Returns:
        The next state and what is to be done for it; no action if nothing changed.
    """
    if rollout.phase not in {Phase.PROGRESSING, Phase.WAITING}:
        return rollout, ()
    after = rollout
    if verdict is not None and _is_new(rollout, verdict):
        after = _judged(rollout, verdict, now)
    undecided = after.phase is Phase.PROGRESSING and not after.paused
    if undecided and now >= after.deadline_at_s:
        after = replace(
            after,
            phase=Phase.WAITING,
            reason=f"Undecided after {after.plan.deadline_s:g} s; a human decides. {_last(after)}",
        )
    return _changed(rollout, after)


def provider_failed(rollout: Rollout, reason: str, now: float) -> Transition:
    """
    Count a failure of the analysis itself (the store was away, for example). It never fails the
    challenger; several in a row wait for a human.
    """
    if rollout.phase not in {Phase.PROGRESSING, Phase.WAITING}:
        return rollout, ()
    in_a_row = rollout.consecutive_provider_errors + 1
    after = replace(
        rollout,
        provider_errors=rollout.provider_errors + 1,
        consecutive_provider_errors=in_a_row,
        checked_at_s=max(now, rollout.checked_at_s or now),
    )
    if in_a_row >= CONSECUTIVE_PROVIDER_ERRORS and after.phase is Phase.PROGRESSING:
        after = replace(
            after,
            phase=Phase.WAITING,
            reason=f"The analysis failed {in_a_row} times in a row: {reason}",
        )
    return _changed(rollout, after)


def promote(rollout: Rollout, reason: str) -> Transition:
    """
    Promote by a human's word, whatever the evidence.

    Raises:
        RolloutConflict: It is being promoted already, or finished. Of two promotions one wins.
    """
    if rollout.phase not in {Phase.PROGRESSING, Phase.WAITING}:
        raise RolloutConflict(f"Rollout {rollout.id} is {rollout.phase} and cannot be promoted.")
    return _changed(rollout, replace(rollout, phase=Phase.PROMOTING, paused=False, reason=reason))


def promoted(rollout: Rollout, now: float) -> Transition:
    """
    The alias has moved.

    Raises:
        RolloutConflict: It was not being promoted.
    """
    if rollout.phase is Phase.SUCCEEDED:
        return rollout, ()
    if rollout.phase is not Phase.PROMOTING:
        raise RolloutConflict(f"Rollout {rollout.id} is {rollout.phase}, not Promoting.")
    return _changed(rollout, replace(rollout, phase=Phase.SUCCEEDED, finished_at_s=now))


def refused(rollout: Rollout, now: float, reason: str) -> Transition:
    """
    The alias could not be moved, because someone else had moved it or the version is gone.

    Raises:
        RolloutConflict: It was not being promoted.
    """
    if rollout.phase is Phase.FAILED:
        return rollout, ()
    if rollout.phase is not Phase.PROMOTING:
        raise RolloutConflict(f"Rollout {rollout.id} is {rollout.phase}, not Promoting.")
    return _changed(rollout, _failed(rollout, now, reason))


def roll_back(rollout: Rollout, now: float, reason: str) -> Transition:
    """
    Give all traffic to the champion, at once. Rolling back what has failed changes nothing.

    Raises:
        RolloutConflict: It is being promoted, or has been.
    """
    if rollout.phase is Phase.FAILED:
        return rollout, ()
    if rollout.phase in {Phase.PROMOTING, Phase.SUCCEEDED}:
        raise RolloutConflict(f"Rollout {rollout.id} is {rollout.phase}; move the alias instead.")
    return _changed(rollout, _failed(rollout, now, reason))


def pause(rollout: Rollout) -> Transition:
    """
    Hold the current step. It is still judged, and a Failed verdict still rolls back.

    Raises:
        RolloutConflict: It is being promoted, or finished.
    """
    _require_judged(rollout, "paused")
    return _changed(rollout, replace(rollout, paused=True))


def resume(rollout: Rollout, now: float) -> Transition:
    """
    Go on after a pause or a wait, with a fresh deadline and the evidence so far.

    Raises:
        RolloutConflict: It is being promoted, or finished.
    """
    _require_judged(rollout, "resumed")
    if not rollout.paused and rollout.phase is Phase.PROGRESSING:
        return rollout, ()
    after = replace(
        rollout,
        phase=Phase.PROGRESSING,
        paused=False,
        consecutive_provider_errors=0,
        deadline_at_s=now + rollout.plan.deadline_s,
        reason="Resumed.",
    )
    return _changed(rollout, after)


def _is_new(rollout: Rollout, verdict: Verdict) -> bool:
    of_this_step = (verdict.stage, verdict.step) == (rollout.stage, rollout.step)
    last = rollout.step_started_at_s if rollout.checked_at_s is None else rollout.checked_at_s
    return of_this_step and verdict.at_s > max(last, rollout.step_started_at_s)


def _judged(rollout: Rollout, verdict: Verdict, now: float) -> Rollout:
    after = replace(
        rollout,
        checked_at_s=verdict.at_s,
        consecutive_provider_errors=0,
        verdicts=(*rollout.verdicts, verdict)[-HISTORY:],
    )
    if verdict.outcome is Outcome.FAILED:
        after = replace(after, failed_checks=after.failed_checks + 1)
        if after.failed_checks >= after.plan.threshold:
            return _failed(after, now, verdict.sentence)
        return after
    held = after.paused or after.phase is Phase.WAITING
    young = verdict.at_s - after.step_started_at_s < after.plan.interval_s
    if verdict.outcome is Outcome.SUCCESSFUL and not held and not young:
        return _next_step(after, verdict, now)
    return after


def _next_step(rollout: Rollout, verdict: Verdict, now: float) -> Rollout:
    if rollout.step + 1 < len(rollout.current_stage.judged_steps):
        stage, step = rollout.stage, rollout.step + 1
    elif rollout.stage + 1 < len(rollout.plan.stages):
        stage, step = rollout.stage + 1, 0
    elif rollout.plan.auto_promote:
        return replace(rollout, phase=Phase.PROMOTING, reason=verdict.sentence)
    else:
        reason = f"Every step has passed; a human promotes. {verdict.sentence}"
        return replace(rollout, phase=Phase.WAITING, reason=reason)
    return replace(
        rollout,
        stage=stage,
        step=step,
        step_started_at_s=now,
        deadline_at_s=now + rollout.plan.deadline_s,
        reason=verdict.sentence,
    )


def _failed(rollout: Rollout, now: float, reason: str) -> Rollout:
    return replace(rollout, phase=Phase.FAILED, paused=False, finished_at_s=now, reason=reason)


def _last(rollout: Rollout) -> str:
    return rollout.verdicts[-1].sentence if rollout.verdicts else "There was no verdict yet."


def _require_judged(rollout: Rollout, participle: str) -> None:
    if rollout.phase not in {Phase.PROGRESSING, Phase.WAITING}:
        raise RolloutConflict(
            f"Rollout {rollout.id} is {rollout.phase} and cannot be {participle}."
        )


def _changed(before: Rollout, after: Rollout) -> Transition:
    if after == before:
        return before, ()
    after = replace(after, revision=before.revision + 1)
    return after, () if actions_for(after) == actions_for(before) else actions_for(after)
