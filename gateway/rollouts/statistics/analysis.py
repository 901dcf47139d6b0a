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
"""

import math
from collections.abc import Sequence

from gateway.rollouts.statistics.measures import Measurement, measure
from gateway.rollouts.statistics.metrics import Metric, MetricName, Strategy
from gateway.rollouts.statistics.observations import Observations
from gateway.rollouts.statistics.verdict import MetricVerdict, Outcome, Verdict


def analyse(
    observations: Observations,
    *,
    metrics: Sequence[Metric],
    strategy: Strategy,
    comparisons: int,
    min_samples: int,
    alpha: float,
    stage: int,
    step: int,
    now: float,
) -> Verdict:
    """
    Judge one step.

    Args:
        observations: Counts since the step began, over all gateways.
        metrics: Of the rollout; those that the strategy cannot observe are left out.
        strategy: Of the stage.
        comparisons: Metrics times judged steps of the whole rollout (`Plan.comparisons`).
        min_samples: Answers of the challenger before the step can pass.
        alpha: Bound on each of the two errors, over the whole rollout.
        stage: Position of the stage.
        step: Position of the step in it.
        now: Unix seconds.

    Returns:
        Failed if any metric failed; Successful if every required one succeeded and there are enough
        samples; else Inconclusive.
    """
    judged = tuple(
        judge(
            metric,
            measure(metric, observations),
            strategy=strategy,
            needed_to_fail=math.log(comparisons / alpha),
            needed_to_pass=math.log(1 / alpha),
        )
        for metric in metrics
        if metric.applies_to(strategy)
    )
    samples = int(observations.challenger.requests)
    failed = [verdict for verdict in judged if verdict.outcome is Outcome.FAILED]
    open_ = [v for v in judged if v.required and v.outcome is not Outcome.SUCCESSFUL]
    if failed:
        outcome, sentence = Outcome.FAILED, failed[0].sentence
    elif samples < min_samples:
        outcome = Outcome.INCONCLUSIVE
        sentence = f"The challenger answered {samples:,} of the {min_samples:,} requests asked for."
    elif open_:
        outcome, sentence = Outcome.INCONCLUSIVE, open_[0].sentence
    elif not any(verdict.required for verdict in judged):
        outcome, sentence = Outcome.INCONCLUSIVE, "No metric is required, so nothing can decide."
    else:
        outcome = Outcome.SUCCESSFUL
        names = ", ".join(verdict.metric for verdict in judged if verdict.required)
        sentence = (
            f"After {samples:,} requests the challenger is not worse than tolerated: {names}."
        )
    return Verdict(outcome, stage, step, now, samples, judged, sentence)


def judge(
    metric: Metric,
    measured: Measurement,
    *,
    strategy: Strategy,
    needed_to_fail: float,
    needed_to_pass: float,
) -> MetricVerdict:
    """Turn one metric's numbers into its verdict; both needs are logarithms of evidence."""
    fewest = min(measured.champion_samples, measured.challenger_samples)
    if fewest < metric.min_samples:
        outcome = Outcome.INCONCLUSIVE
    elif measured.log_worse >= needed_to_fail:
        outcome = Outcome.FAILED
    elif measured.log_not_worse >= needed_to_pass:
        outcome = Outcome.SUCCESSFUL
    else:
        outcome = Outcome.INCONCLUSIVE
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
        required=metric.blocks(strategy, fewest),
        sentence=_sentence(metric, measured, outcome, fewest),
    )


_LABELS = {
    MetricName.ERROR_RATE: "error rate",
    MetricName.LATENCY: "latency",
    MetricName.ACCURACY: "accuracy",
    MetricName.AGREEMENT: "agreement with the champion",
    MetricName.SCORE_DRIFT: "mean distance of the scores",
}


def _sentence(metric: Metric, measured: Measurement, outcome: Outcome, fewest: float) -> str:
    label = _LABELS[metric.name]
    if metric.name is MetricName.LATENCY:
        label = f"p{metric.percentile:g} latency"
    if not fewest:
        return f"No data on the {label} yet."
    if fewest < metric.min_samples:
        return f"{int(fewest):,} of at least {metric.min_samples:,} samples of the {label} so far."
    value = f"{label} is {_value(metric, measured.challenger)}"
    if measured.champion is not None:
        value += f" against {_value(metric, measured.champion)}"
    seen = f"over {int(measured.challenger_samples):,}"
    if not metric.name.paired:
        seen += f" and {int(measured.champion_samples):,}"
    tolerated = _tolerated(metric)
    if outcome is Outcome.FAILED:
        odds = _odds(measured.log_worse)
        return (
            f"The challenger's {value} {seen} answers, worse than the tolerated {tolerated}; "
            f"chance does this to a tolerable version at most once in {odds}."
        )
    if outcome is Outcome.SUCCESSFUL:
        return f"The challenger's {value} {seen} answers, within the tolerated {tolerated}."
    return (
        f"The challenger's {value} {seen} answers: too little evidence to tell it from the "
        f"tolerated {tolerated}."
    )


def _value(metric: Metric, value: float | None) -> str:
    if value is None:
        return "unknown"
    if metric.name is MetricName.LATENCY:
        return f"{value * 1000:.3g} ms"
    if metric.name is MetricName.SCORE_DRIFT:
        return f"{value:.3f}"
    return f"{value * 100:.2f} %"


def _tolerated(metric: Metric) -> str:
    match metric.name:
        case MetricName.LATENCY:
            return f"{metric.tolerated:+.0%}"
        case MetricName.AGREEMENT:
            return f"minimum of {(1 - metric.tolerated) * 100:g} %"
        case MetricName.SCORE_DRIFT:
            return f"{metric.tolerated:g}"
        case MetricName.ACCURACY:
            return f"{-metric.tolerated * 100:+g} points"
        case MetricName.ERROR_RATE:
            return f"{metric.tolerated * 100:+g} points"


def _odds(log_evidence: float) -> str:
    if log_evidence > math.log(1e6):
        return "a million"
    return f"{int(math.exp(log_evidence)):,}"
