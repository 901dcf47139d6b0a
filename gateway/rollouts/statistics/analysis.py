"""
One check of one step: from counts to a verdict.

Each metric asks two questions of the same counts. Is the challenger worse than tolerated? Then it
is Failed. Is it shown not to be worse than tolerated? Then it is Successful. Until one of the two
is answered it is Inconclusive, and so is a metric without data.

Errors are bounded over the whole rollout, although every step is looked at again and again:

- A challenger that is within tolerance is rolled back with probability at most `alpha`. The
  evidence for Failed must reach comparisons / alpha, where comparisons counts every metric of every
  judged step (a union bound over Ville's inequality).
- A challenger that is worse than tolerated on a metric that blocks passes a step with probability
  at most `alpha`: every such metric must be Successful in every step, so no correction is needed
  (an intersection-union test).

What was shown once stays shown: by Ville's inequality the evidence of a challenger that is worse
exceeds 1 / alpha with probability alpha at any time. So accuracy that was shown in the shadow need
not be shown again by the few labels of a canary; labels may still show the opposite.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.rollouts.statistics.blocking import Situation, Step
from gateway.rollouts.statistics.measures import Measurement, labels_seen, measure
from gateway.rollouts.statistics.metrics import Metric, MetricName, OnFail, Strategy
from gateway.rollouts.statistics.observations import Observations
from gateway.rollouts.statistics.planning import more_samples, notice_of
from gateway.rollouts.statistics.sentences import sentence_of
from gateway.rollouts.statistics.split import judge_split
from gateway.rollouts.statistics.verdict import MetricVerdict, Outcome, Verdict

__all__ = ["Feedback", "Step", "analyse", "outcome_of"]


@dataclass(frozen=True, slots=True)
class Feedback:
    """
    What is known of labels.

    Attributes:
        expected: The plan says that they come, or the model gets some.
        late: They come so late that no step but the last waits for them.
        complaints: The share of wrong answers that is complained about; None for a sample.
        shown: An earlier check has shown that accuracy is not worse than tolerated.
    """

    expected: bool = False
    late: bool = False
    complaints: float | None = None
    shown: bool = False


_NO_LABELS = Feedback()


def analyse(
    observations: Observations,
    *,
    earlier: Sequence[Observations] = (),
    metrics: Sequence[Metric],
    at: Step,
    feedback: Feedback = _NO_LABELS,
    comparisons: int,
    min_samples: int,
    alpha: float,
) -> Verdict:
    """
    Judge one step.

    Args:
        observations: Counts since the step began, over all gateways.
        earlier: Counts of the steps before it, of which labels may come late.
        metrics: Of the rollout; those that the strategy cannot observe are left out.
        at: Which step, and when.
        feedback: What is known of labels.
        comparisons: Metrics times judged steps of the whole rollout (`Plan.comparisons`).
        min_samples: Answers of the challenger before the step can pass.
        alpha: Bound on each of the two errors, over the whole rollout.

    Returns:
        Failed if a metric failed that rolls back; Successful if every one that blocks succeeded and
        there are enough samples; else Inconclusive, and held if a metric failed that holds.
    """
    needs = math.log(comparisons / alpha), math.log(1 / alpha)
    applied = [metric for metric in metrics if metric.applies_to(at.strategy)]
    measured = {
        metric.name: measure(metric, observations, earlier, complaints=feedback.complaints)
        for metric in applied
    }
    if feedback.shown and MetricName.ACCURACY in measured:
        measured[MetricName.ACCURACY] = measured[MetricName.ACCURACY].at_least(needs[1])
    outcomes = {
        metric.name: outcome_of(metric, measured[metric.name], needs, observations)
        for metric in applied
    }
    labelled = feedback.expected or labels_seen((*earlier, observations)) > 0
    situation = Situation(at, feedback.late, labelled, outcomes, measured, observations)
    judged = []
    for metric in applied:
        required = situation.blocks(metric)
        more = None
        if required and outcomes[metric.name] is Outcome.INCONCLUSIVE:
            more = more_samples(
                metric, observations, earlier, feedback.complaints, measured[metric.name], needs
            )
        judged.append(
            _verdict(
                metric,
                measured[metric.name],
                outcomes[metric.name],
                required=required,
                on_fail=situation.on_fail(metric),
                more=more,
            )
        )
    if at.strategy is not Strategy.SHADOW:
        judged.append(judge_split(observations, at.weight / 100))
    return _conclude(tuple(judged), observations, at, min_samples)


def outcome_of(
    metric: Metric,
    measured: Measurement,
    needs: tuple[float, float],
    observations: Observations | None = None,
) -> Outcome:
    """What the evidence supports; `needs` are its logarithms, to fail and to pass."""
    fewest = min(measured.champion_samples, measured.challenger_samples)
    if observations is not None and metric.name in {MetricName.ERROR_RATE, MetricName.LATENCY}:
        # A caller weighs 1 however often it asks; what is to be held back is a cold start.
        asked = min(observations.champion_requests, observations.challenger_requests)
        fewest = max(fewest, asked) if fewest else 0
    if fewest < metric.min_samples:
        return Outcome.INCONCLUSIVE
    if measured.log_worse >= needs[0]:
        return Outcome.FAILED
    return Outcome.SUCCESSFUL if measured.log_not_worse >= needs[1] else Outcome.INCONCLUSIVE


def _verdict(
    metric: Metric,
    measured: Measurement,
    outcome: Outcome,
    *,
    required: bool,
    on_fail: OnFail,
    more: int | None,
) -> MetricVerdict:
    return MetricVerdict(
        metric=metric.name,
        outcome=outcome,
        champion=measured.champion,
        challenger=measured.challenger,
        tolerated=metric.tolerated,
        champion_samples=int(measured.champion_samples),
        challenger_samples=int(measured.challenger_samples),
        chance_if_tolerable=math.exp(-max(0.0, measured.log_worse)),
        chance_if_worse=math.exp(-max(0.0, measured.log_not_worse)),
        required=required,
        sentence=sentence_of(metric, measured, outcome),
        on_fail=on_fail,
        more_samples=more,
    )


def _conclude(
    judged: tuple[MetricVerdict, ...], seen: Observations, at: Step, min_samples: int
) -> Verdict:
    samples = int(seen.challenger_requests)
    failed = [verdict for verdict in judged if verdict.outcome is Outcome.FAILED]
    ends = [verdict for verdict in failed if verdict.on_fail == OnFail.ROLLBACK]
    holds = [verdict for verdict in failed if verdict.on_fail == OnFail.HOLD]
    blocking = [verdict for verdict in judged if verdict.required]
    open_ = [verdict for verdict in blocking if verdict.outcome is not Outcome.SUCCESSFUL]
    outcome = Outcome.FAILED if ends else Outcome.INCONCLUSIVE
    if ends:
        sentence = ends[0].sentence
    elif holds:
        sentence = holds[0].sentence
    elif samples < min_samples:
        sentence = f"The challenger answered {samples:,} of the {min_samples:,} requests asked for."
    elif open_:
        sentence = open_[0].sentence
    elif not blocking:
        sentence = "No metric is required, so nothing can decide."
    else:
        outcome = Outcome.SUCCESSFUL
        names = ", ".join(verdict.metric for verdict in blocking)
        sentence = (
            f"After {samples:,} requests the challenger is not worse than tolerated: {names}."
        )
    more_s, notice = None, ""
    if outcome is Outcome.INCONCLUSIVE:
        more_s, notice = notice_of(open_, samples, min_samples, age_s=at.age_s, left_s=at.left_s)
    return Verdict(
        outcome=outcome,
        stage=at.stage,
        step=at.step,
        at_s=at.now,
        samples=samples,
        metrics=judged,
        sentence=sentence,
        number=at.number,
        held=bool(holds) and not ends,
        more_s=more_s,
        notice=notice,
    )
