"""Read what was counted for a rollout, and judge its current step."""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.rollouts.live.tally import Tally
from gateway.rollouts.state.plan import LabelKind
from gateway.rollouts.state.rollout import Rollout
from gateway.rollouts.statistics.analysis import Feedback, Step, analyse
from gateway.rollouts.statistics.observations import Observations, merged
from gateway.rollouts.statistics.verdict import Verdict
from gateway.store.rollout_evidence import EvidenceStore


@dataclass(frozen=True, slots=True)
class Observed:
    """Counts of the current step, of those before it in order, and the copies that were dropped."""

    current: Observations
    earlier: Sequence[Observations]
    dropped: int


async def observe(rollout: Rollout, store: EvidenceStore, tally: Tally) -> Observed:
    """
    Add up what every gateway has counted; this one's counts are fresh.

    Raises:
        pydantic.ValidationError: Stored counts cannot be read.
        StoreUnavailable: The store is away.
    """
    await tally.flush()
    place, dropped = (rollout.stage, rollout.step), 0
    parts: dict[tuple[int, int], list[Observations]] = {}
    for document in await store.observations(rollout.id):
        at = (document.stage, document.step)
        if at > place:
            continue
        parts.setdefault(at, []).append(Observations.from_json(document.counts))
        dropped += document.dropped if at == place else 0
    steps = {at: merged(parts[at]) for at in sorted(parts)}
    current = steps.pop(place, Observations())
    return Observed(current, tuple(steps.values()), dropped)


def judge(rollout: Rollout, observed: Observed, now: float, *, elapsed_s: float) -> Verdict:
    """
    Analyse the current step of a rollout.

    Args:
        rollout: As stored.
        observed: What was counted.
        now: Unix seconds.
        elapsed_s: Since its last check, or since the step began.
    """
    plan = rollout.plan
    labels = plan.labels
    return analyse(
        observed.current,
        earlier=observed.earlier,
        metrics=plan.metrics,
        at=Step(
            strategy=rollout.current_stage.strategy,
            stage=rollout.stage,
            step=rollout.step,
            number=rollout.checks + 1,
            weight=rollout.weight,
            last=plan.is_last(rollout.stage, rollout.step),
            now=now,
            age_s=rollout.age_s + elapsed_s,
            left_s=max(0.0, plan.deadline_s - rollout.waited_s - elapsed_s),
        ),
        feedback=Feedback(
            expected=labels is not None or rollout.labelled,
            late=labels is not None and (labels.delay_s > 0 or labels.kind is LabelKind.COMPLAINTS),
            complaints=(
                labels.fraction
                if labels is not None and labels.kind is LabelKind.COMPLAINTS
                else None
            ),
            shown=rollout.accuracy_shown,
        ),
        comparisons=plan.comparisons,
        min_samples=plan.min_samples,
        alpha=plan.alpha,
    )
