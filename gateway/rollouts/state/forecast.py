"""
How long a plan takes, told before it begins.

The counts that are expected of a challenger as good as the champion are fed to the functions that
decide, and the smallest number of requests that suffices is looked for. That is a forecast for the
middle case, not a bound: half of all rollouts take longer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gateway.rollouts.state.plan import LabelKind, Labels, Plan, Stage
from gateway.rollouts.statistics.histogram import NOTHING, Histogram
from gateway.rollouts.statistics.metrics import Metric, MetricName, OnFail, Strategy
from gateway.rollouts.statistics.observations import Arm, Compute, Observations, Pairs
from gateway.rollouts.statistics.sample_size import requests_to_decide
from gateway.rollouts.statistics.verdict import Outcome

# Assumed of a challenger that is as good: how many of its answers differ, and how many of the
# champion's are wrong.
ASSUMED_DIFFERENT = 0.05
ASSUMED_WRONG = 0.10
# Assumed of the machine: the share of a shadow's copies that are timed, and the inferences that a
# window of computing needs of each version; a window lasts a second.
_TIMED, _WINDOW_RUNS, _WINDOW_S = 0.5, 5, 1.0
# Which steps are suggested: the first whose rollout ends in time, from the most careful on.
STEPS_BY_CARE = ((1.0, 5.0, 25.0, 50.0, 100.0), (5.0, 25.0, 50.0, 100.0), (10.0, 50.0, 100.0))
FEWEST_STEPS = (50.0, 100.0)
_MOST_REQUESTS = 1_000_000_000
_PRECISION = 0.02


@dataclass(frozen=True, slots=True)
class KnownTraffic:
    """
    A model's own traffic.

    Attributes:
        requests_per_s: How many requests it gets; 0 if nothing is known.
        error_rate: The share of them that fails, 0 to 1.
        latencies: How long they take, as shares of all; empty if nothing is known.
    """

    requests_per_s: float = 0.0
    error_rate: float = 0.002
    latencies: Histogram = NOTHING


@dataclass(frozen=True, slots=True)
class StepForecast:
    """
    One step.

    Attributes:
        strategy: Of the step.
        share: What is mirrored, or answered by the challenger, 0 to 100.
        requests: Of the model's whole traffic; None if no number decides it.
        seconds: How long that takes; None if that cannot be told.
        decided_by: What takes longest: a metric, `min_samples`, `interval_s` or `labels`.
    """

    strategy: Strategy
    share: float
    requests: int | None
    seconds: float | None
    decided_by: str


@dataclass(frozen=True, slots=True)
class PlanForecast:
    """All steps in order."""

    steps: tuple[StepForecast, ...]

    @property
    def requests(self) -> int | None:
        """Of the whole rollout; None if a step cannot be decided."""
        found = [step.requests for step in self.steps if step.requests is not None]
        return sum(found) if len(found) == len(self.steps) else None

    @property
    def seconds(self) -> float | None:
        """How long the rollout takes; None if that cannot be told."""
        found = [step.seconds for step in self.steps if step.seconds is not None]
        return sum(found) if len(found) == len(self.steps) else None

    def within(self, deadline_s: float) -> bool:
        """Whether the rollout ends before one deadline."""
        return self.seconds is not None and self.seconds <= deadline_s


def forecast(plan: Plan, traffic: KnownTraffic) -> PlanForecast:
    """Tell how many requests each step of a plan needs, and how long they take to come."""
    steps: list[StepForecast] = []
    earlier: list[Observations] = []
    accuracy_open = True
    for place, stage in enumerate(plan.stages):
        for number, share in enumerate(stage.judged_steps):
            last = plan.is_last(place, number)
            each = _per_request(stage.strategy, share / 100, plan.labels, traffic)
            metrics = _waited_for(plan, stage, traffic, last=last, accuracy_open=accuracy_open)
            step = _step(plan, stage.strategy, share, metrics, each, earlier, traffic, last=last)
            if any(metric.name is MetricName.ACCURACY for metric in metrics):
                accuracy_open = False
            steps.append(step)
            earlier.append(each.scaled(step.requests or 0))
    return PlanForecast(tuple(steps))


def suggested_steps(plan: Plan, traffic: KnownTraffic) -> tuple[float, ...] | None:
    """
    The most careful steps of a canary with which the rollout ends within its deadline.

    Returns:
        None if the plan does not end with a canary, or nothing is known of the traffic.
    """
    *before, stage = plan.stages
    if stage.strategy is not Strategy.CANARY or not traffic.requests_per_s:
        return None
    for steps in STEPS_BY_CARE:
        other = replace(plan, stages=(*before, replace(stage, steps=steps)))
        if forecast(other, traffic).within(plan.deadline_s):
            return steps
    return FEWEST_STEPS


def _step(
    plan: Plan,
    strategy: Strategy,
    share: float,
    metrics: Sequence[Metric],
    each: Observations,
    earlier: Sequence[Observations],
    traffic: KnownTraffic,
    *,
    last: bool,
) -> StepForecast:
    labels = plan.labels
    needed = {"min_samples": math.ceil(plan.min_samples / (share / 100))}
    for metric in metrics:
        complains = labels is not None and labels.kind is LabelKind.COMPLAINTS
        size = requests_to_decide(
            metric,
            each,
            earlier=earlier if metric.name is MetricName.ACCURACY else (),
            complaints=labels.fraction if labels is not None and complains else None,
            comparisons=plan.comparisons,
            alpha=plan.alpha,
            limit=_MOST_REQUESTS,
            precision=_PRECISION,
        )
        if size.outcome is not Outcome.SUCCESSFUL:
            return StepForecast(strategy, share, None, None, metric.name)
        needed[metric.name] = size.requests
    decided_by = max(needed, key=lambda name: needed[name])
    requests = needed[decided_by]
    if not traffic.requests_per_s:
        return StepForecast(strategy, share, requests, None, decided_by)
    seconds = requests / traffic.requests_per_s
    if last and labels is not None and labels.delay_s > seconds:
        seconds, decided_by = labels.delay_s, "labels"
    if plan.interval_s > seconds:
        seconds, decided_by = plan.interval_s, "interval_s"
    requests = max(requests, math.ceil(seconds * traffic.requests_per_s))
    return StepForecast(strategy, share, requests, seconds, decided_by)


def _waited_for(
    plan: Plan, stage: Stage, traffic: KnownTraffic, *, last: bool, accuracy_open: bool
) -> list[Metric]:
    """Which metrics a step waits for, as `blocking` says it of what is expected here."""
    strategy, labels = stage.strategy, plan.labels
    shadow = strategy is Strategy.SHADOW
    late = labels is not None and (labels.delay_s > 0 or labels.kind is LabelKind.COMPLAINTS)
    computes = any(metric.name is MetricName.COMPUTE for metric in plan.metrics)

    def waits(metric: Metric) -> bool:
        match metric.name:
            case MetricName.ACCURACY:
                asked = labels is not None or metric.required_in(strategy)
                now = last or strategy is Strategy.AB or (not late and (shadow or metric.required))
                return accuracy_open and asked and now
            case MetricName.COMPUTE:
                return not shadow
            case MetricName.LATENCY:
                return (
                    metric.required and bool(traffic.latencies.counts) and (shadow or not computes)
                )
            case MetricName.AGREEMENT:
                return metric.required and (labels is None or late)
            case MetricName.ERROR_RATE:
                return metric.required
            case _:
                return False

    return [
        metric
        for metric in plan.metrics
        if metric.applies_to(strategy) and metric.on_fail is not OnFail.OBSERVE and waits(metric)
    ]


def _per_request(
    strategy: Strategy, share: float, labels: Labels | None, traffic: KnownTraffic
) -> Observations:
    """What one request of the whole traffic adds on average; `share` lies above 0, up to 1."""
    shadow = strategy is Strategy.SHADOW
    fraction = 0.0 if labels is None else labels.fraction
    wrong = ASSUMED_WRONG * fraction
    complains = labels is not None and labels.kind is LabelKind.COMPLAINTS
    labelled = wrong if complains else fraction

    def arm(of: float) -> Arm:
        answered = of * (1 - traffic.error_rate) * (_TIMED if shadow else 1.0)
        return Arm(
            requests=of,
            errors=of * traffic.error_rate,
            latencies=traffic.latencies.scaled(answered),
            labelled=of * labelled,
            wrong=of * wrong,
        )

    if shadow:
        differs = share * ASSUMED_DIFFERENT
        apart = 0.0 if complains else differs * fraction / 2
        pairs = Pairs(
            compared=share,
            disagreed=differs,
            labelled=0.0 if complains else share * fraction,
            only_champion_right=apart,
            only_challenger_right=apart,
        )
        return Observations(arm(share), arm(share), pairs)
    windows = min(share, 1 - share) / _WINDOW_RUNS
    if traffic.requests_per_s:
        windows = min(windows, 1 / (_WINDOW_S * traffic.requests_per_s))
    return Observations(arm(1 - share), arm(share), compute=Compute(windows=windows))
