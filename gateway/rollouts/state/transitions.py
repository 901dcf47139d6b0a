"""
How a rollout changes: a state machine without I/O.

    begin ─▶ Progressing ──Successful in every step──▶ Promoting ──alias moved──▶ Succeeded
                │  ▲   │                                 ▲    │
     deadline,  │  │   └───Failed (threshold times)──┐   │    └──alias refused──┐
     hold,      │  │ Successful, labels,             ▼   │                     ▼
     approval   ▼  │ resume                        Failed│                   Failed
             Waiting ───────────Failed──────────▶ Failed │
                └────────────────────promote (a human)───┘

- A step passes when its verdict is Successful and it has lasted an interval. A canary's step of 100
  is the promotion itself: with nothing left to compare with, nothing could be judged.
- Failed checks only add up (Flagger); at `threshold` the rollout is Failed and the weight 0 at
  once, also while it is paused or Waiting: nobody has to be awake for a roll back.
- No data is Inconclusive. A step that is undecided at its deadline waits, and goes on by itself
  when the evidence decides after all. So does one that a metric holds which does not roll back.
  A decided rollout whose plan says not to promote by itself waits for a human.
- Errors of the analysis itself (the provider) are counted apart; four in a row wait until it works
  again.

Every function takes the rollout and returns a new one with what is to be done. A verdict that was
seen already, or that judges another step, changes nothing.

Sources: Flagger, "Deployment strategies" (interval, threshold, stepWeights); Argo Rollouts,
"Analysis" (Inconclusive pauses, consecutiveErrorLimit 4).
"""

from dataclasses import replace

from gateway.errors import RolloutConflict, RolloutInvalid
from gateway.rollouts.state.plan import Plan
from gateway.rollouts.state.rollout import JUDGED, Action, Phase, Rollout, WaitsFor, actions_for
from gateway.rollouts.statistics.metrics import MetricName
from gateway.rollouts.statistics.verdict import Outcome, Verdict

HISTORY = 20
CONSECUTIVE_PROVIDER_ERRORS = 4

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
    )
    return rollout, actions_for(rollout)


def advance(rollout: Rollout, verdict: Verdict, now: float, *, elapsed_s: float) -> Transition:
    """
    Take one verdict into account.

    Args:
        rollout: As stored.
        verdict: Of the current step.
        now: Unix seconds, for people.
        elapsed_s: Seconds since the last check, or since the step began, by a steady clock.

    Returns:
        The next state and what is to be done for it; no action if nothing changed.
    """
    if rollout.phase not in JUDGED or not _is_new(rollout, verdict):
        return rollout, ()
    after = _judged(_aged(rollout, now, elapsed_s), verdict, now)
    undecided = after.phase is Phase.PROGRESSING and not after.paused
    if undecided and after.waited_s >= after.plan.deadline_s:
        reason = f"Undecided after {after.plan.deadline_s:g} s. {verdict.sentence}"
        after = _waiting(after, WaitsFor.EVIDENCE, reason)
    return _changed(rollout, after)


def provider_failed(rollout: Rollout, reason: str, now: float, *, elapsed_s: float) -> Transition:
    """
    Count a failure of the analysis itself (counts that cannot be read, for example). It never fails
    the challenger; several in a row wait until the analysis works again.
    """
    if rollout.phase not in JUDGED:
        return rollout, ()
    in_a_row = rollout.consecutive_provider_errors + 1
    after = replace(
        _aged(rollout, now, elapsed_s),
        provider_errors=rollout.provider_errors + 1,
        consecutive_provider_errors=in_a_row,
    )
    if in_a_row >= CONSECUTIVE_PROVIDER_ERRORS and after.phase is Phase.PROGRESSING:
        reason = f"The analysis failed {in_a_row} times in a row: {reason}"
        after = _waiting(after, WaitsFor.ANALYSIS, reason)
    return _changed(rollout, after)


def promote(rollout: Rollout, reason: str) -> Transition:
    """
    Promote by a human's word, whatever the evidence.

    Raises:
        RolloutConflict: It is being promoted already, or finished. Of two promotions one wins.
    """
    _require_judged(rollout, "promoted")
    return _changed(rollout, _promoting(rollout, reason))


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


def skip_step(rollout: Rollout, now: float, reason: str) -> Transition:
    """
    Go to the next step by a human's word, whatever the evidence.

    Raises:
        RolloutConflict: It is in its last step, is being promoted, or has ended.
    """
    _require_judged(rollout, "taken to its next step")
    if rollout.plan.is_last(rollout.stage, rollout.step):
        raise RolloutConflict(f"Rollout {rollout.id} is in its last step: promote it instead.")
    return _changed(rollout, _next_step(replace(rollout, paused=False), reason, now))


def pause(rollout: Rollout) -> Transition:
    """
    Hold the current step. It is still judged, and a Failed verdict still rolls back.

    Raises:
        RolloutConflict: It is being promoted, or finished.
    """
    _require_judged(rollout, "paused")
    return _changed(rollout, replace(rollout, paused=True))


def resume(rollout: Rollout) -> Transition:
    """
    Go on after a pause or a wait, with a fresh deadline and the evidence so far.

    Raises:
        RolloutConflict: It is being promoted, or finished.
    """
    _require_judged(rollout, "resumed")
    if not rollout.paused and rollout.phase is Phase.PROGRESSING:
        return rollout, ()
    return _changed(rollout, _progressing(replace(rollout, paused=False), "Resumed."))


def _is_new(rollout: Rollout, verdict: Verdict) -> bool:
    of_this_step = (verdict.stage, verdict.step) == (rollout.stage, rollout.step)
    return of_this_step and verdict.number == rollout.checks + 1


def _aged(rollout: Rollout, now: float, elapsed_s: float) -> Rollout:
    return replace(
        rollout,
        checks=rollout.checks + 1,
        checked_at_s=now,
        age_s=rollout.age_s + elapsed_s,
        waited_s=rollout.waited_s + elapsed_s,
    )


def _judged(rollout: Rollout, verdict: Verdict, now: float) -> Rollout:
    after = replace(
        rollout,
        consecutive_provider_errors=0,
        verdicts=(*rollout.verdicts, verdict)[-HISTORY:],
        accuracy_shown=rollout.accuracy_shown or verdict.shows(MetricName.ACCURACY),
    )
    if verdict.outcome is Outcome.FAILED:
        after = replace(after, failed_checks=after.failed_checks + 1)
        if after.failed_checks >= after.plan.threshold:
            return _failed(after, now, verdict.sentence)
        return after
    if after.waits_for is WaitsFor.ANALYSIS:
        after = _progressing(after, "The analysis works again.")
    young = after.age_s < after.plan.interval_s
    if after.paused or young or after.waits_for is WaitsFor.APPROVAL:
        return after
    if verdict.outcome is Outcome.SUCCESSFUL:
        return _passed(after, verdict.sentence, now)
    if verdict.held and after.phase is Phase.PROGRESSING:
        return _waiting(after, WaitsFor.EVIDENCE, verdict.sentence)
    return after


def _passed(rollout: Rollout, reason: str, now: float) -> Rollout:
    if not rollout.plan.is_last(rollout.stage, rollout.step):
        return _next_step(rollout, reason, now)
    if rollout.plan.auto_promote:
        return _promoting(rollout, reason)
    reason = f"Every step has passed; a human promotes. {reason}"
    return _waiting(rollout, WaitsFor.APPROVAL, reason)


def _next_step(rollout: Rollout, reason: str, now: float) -> Rollout:
    stage, step = rollout.stage, rollout.step + 1
    if step == len(rollout.current_stage.judged_steps):
        stage, step = stage + 1, 0
    moved = replace(rollout, stage=stage, step=step, step_started_at_s=now, age_s=0.0)
    return _progressing(moved, reason)


def _progressing(rollout: Rollout, reason: str) -> Rollout:
    return replace(
        rollout,
        phase=Phase.PROGRESSING,
        waits_for=None,
        waited_s=0.0,
        consecutive_provider_errors=0,
        reason=reason,
    )


def _waiting(rollout: Rollout, waits_for: WaitsFor, reason: str) -> Rollout:
    return replace(rollout, phase=Phase.WAITING, waits_for=waits_for, reason=reason)


def _promoting(rollout: Rollout, reason: str) -> Rollout:
    return replace(rollout, phase=Phase.PROMOTING, waits_for=None, paused=False, reason=reason)


def _failed(rollout: Rollout, now: float, reason: str) -> Rollout:
    return replace(
        rollout,
        phase=Phase.FAILED,
        waits_for=None,
        paused=False,
        finished_at_s=now,
        reason=reason,
    )


def _require_judged(rollout: Rollout, participle: str) -> None:
    if rollout.phase not in JUDGED:
        raise RolloutConflict(
            f"Rollout {rollout.id} is {rollout.phase} and cannot be {participle}."
        )


def _changed(before: Rollout, after: Rollout) -> Transition:
    if after == before:
        return before, ()
    after = replace(after, revision=before.revision + 1)
    return after, () if actions_for(after) == actions_for(before) else actions_for(after)
