"""
What is compared, and what is tolerated.

metric        lower is better  tolerated means                          data
error_rate    yes              difference of rates                      both arms
latency       yes              ratio of percentiles, minus one          both arms
compute       yes              ratio of means, minus one                Triton's own measurements
accuracy      no               difference of rates                      pairs, else both arms
class_recall  no               difference of rates, for each class      labelled pairs (shadow)
agreement     no               rate of disagreement                     pairs (shadow)
score_drift   yes              mean distance of the score vectors       pairs (shadow)

A negative tolerance asks for a challenger that is better by as much. Latency and compute tolerate
the larger of the ratio and `floor_s`. What a failed metric does is its `on_fail`: labels and faults
roll back; agreement and score drift only explain, so they hold the rollout until a human has looked
at it, or labels overrule them.
"""

import math
from dataclasses import dataclass
from enum import StrEnum


class Strategy(StrEnum):
    """How a challenger meets traffic."""

    SHADOW = "shadow"
    CANARY = "canary"
    AB = "ab"


class OnFail(StrEnum):
    """What a failed metric does."""

    ROLLBACK = "rollback"
    HOLD = "hold"
    OBSERVE = "observe"


class MetricName(StrEnum):
    """What is compared."""

    ERROR_RATE = "error_rate"
    LATENCY = "latency"
    COMPUTE = "compute"
    ACCURACY = "accuracy"
    CLASS_RECALL = "class_recall"
    AGREEMENT = "agreement"
    SCORE_DRIFT = "score_drift"

    @property
    def paired(self) -> bool:
        """Only pairs of answers to the same request tell about it."""
        return self in {MetricName.AGREEMENT, MetricName.SCORE_DRIFT, MetricName.CLASS_RECALL}

    @property
    def explains(self) -> bool:
        """It tells how alike the versions are, not which is better: labels overrule it."""
        return self in {MetricName.AGREEMENT, MetricName.SCORE_DRIFT}

    @property
    def timed(self) -> bool:
        """It is a time, and has an absolute floor."""
        return self in {MetricName.LATENCY, MetricName.COMPUTE}


@dataclass(frozen=True, slots=True)
class Metric:
    """
    One metric and what is tolerated.

    Attributes:
        name: Which.
        tolerated: See the table above; a rate or difference (0.01 is one point), or for a time the
            ratio minus one (0.2 is 20 % slower).
        min_samples: Neither Successful nor Failed before each side has that many.
        required: A step does not pass without data on it (see `blocks`).
        percentile: Of the latency, in (0, 100).
        floor_s: A time that is longer by up to so many seconds is tolerated, whatever the ratio.
        on_fail: What a failure does.
    """

    name: MetricName
    tolerated: float
    min_samples: int = 50
    required: bool = True
    percentile: float = 95.0
    floor_s: float = 0.0
    on_fail: OnFail = OnFail.ROLLBACK

    def __post_init__(self) -> None:
        if not -1 < self.tolerated < 1:
            raise ValueError(f"{self.name}: tolerated must lie between -1 and 1.")
        if self.name.paired and self.tolerated <= 0:
            raise ValueError(f"{self.name}: tolerated must be above 0.")
        if not 0 < self.percentile < 100:
            raise ValueError(f"{self.name}: percentile must lie between 0 and 100.")
        if not 1 <= self.min_samples <= 1_000_000_000:
            raise ValueError(f"{self.name}: min_samples must lie between 1 and 1e9.")
        if not (math.isfinite(self.floor_s) and 0 <= self.floor_s <= 60):
            raise ValueError(f"{self.name}: floor_s must lie between 0 and 60.")

    def limit_s(self, champion_s: float) -> float:
        """The longest time that is tolerated of the challenger, from the champion's, in seconds."""
        by_ratio = champion_s * (1 + self.tolerated)
        # A plan that asks for a faster challenger asks for the ratio alone.
        return by_ratio if self.tolerated < 0 else max(by_ratio, champion_s + self.floor_s)

    def applies_to(self, strategy: Strategy) -> bool:
        """Whether the strategy can observe it."""
        return strategy is Strategy.SHADOW or not self.name.paired

    def required_in(self, strategy: Strategy) -> bool:
        """An A/B test is made to decide on accuracy, so there it is always required."""
        return self.required or (strategy is Strategy.AB and self.name is MetricName.ACCURACY)


DEFAULT_METRICS = (
    Metric(MetricName.ERROR_RATE, tolerated=0.01, min_samples=20),
    Metric(MetricName.LATENCY, tolerated=0.2, min_samples=50, floor_s=0.002),
    Metric(MetricName.COMPUTE, tolerated=0.2, min_samples=10, required=False, floor_s=0.002),
    Metric(MetricName.ACCURACY, tolerated=0.01, min_samples=50, required=False),
    Metric(MetricName.CLASS_RECALL, tolerated=0.2, min_samples=30, required=False),
    Metric(MetricName.AGREEMENT, tolerated=0.15, min_samples=50, on_fail=OnFail.HOLD),
    Metric(
        MetricName.SCORE_DRIFT, tolerated=0.2, min_samples=50, required=False, on_fail=OnFail.HOLD
    ),
)
