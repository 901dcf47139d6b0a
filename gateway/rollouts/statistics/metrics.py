"""
What is compared, and what is tolerated.

metric        lower is better  tolerated means                          data
error_rate    yes              difference of rates                      both arms
latency       yes              ratio of percentiles, minus one          both arms
accuracy      no               difference of rates                      pairs, else both arms
agreement     no               rate of disagreement                     pairs (shadow)
score_drift   yes              mean distance of the score vectors       pairs (shadow)

A negative tolerance asks for a challenger that is better by as much.
"""

from dataclasses import dataclass
from enum import StrEnum


class Strategy(StrEnum):
    """How a challenger meets traffic."""

    SHADOW = "shadow"
    CANARY = "canary"
    AB = "ab"


class MetricName(StrEnum):
    """What is compared."""

    ERROR_RATE = "error_rate"
    LATENCY = "latency"
    ACCURACY = "accuracy"
    AGREEMENT = "agreement"
    SCORE_DRIFT = "score_drift"

    @property
    def paired(self) -> bool:
        """Only pairs of answers to the same request tell about it."""
        return self in {MetricName.AGREEMENT, MetricName.SCORE_DRIFT}


@dataclass(frozen=True, slots=True)
class Metric:
    """
    One metric and what is tolerated.

    Attributes:
        name: Which.
        tolerated: See the table above; a rate or difference (0.01 is one point), or for latency the
            ratio minus one (0.2 is 20 % slower).
        min_samples: Neither Successful nor Failed before each side has that many.
        required: A step does not pass without data on it (see `blocks`).
        percentile: Of the latency, in (0, 100).
    """

    name: MetricName
    tolerated: float
    min_samples: int = 50
    required: bool = True
    percentile: float = 95.0

    def __post_init__(self) -> None:
        if not -1 < self.tolerated < 1:
            raise ValueError(f"{self.name}: tolerated must lie between -1 and 1.")
        if self.name.paired and self.tolerated <= 0:
            raise ValueError(f"{self.name}: tolerated must be above 0.")
        if not 0 < self.percentile < 100:
            raise ValueError(f"{self.name}: percentile must lie between 0 and 100.")
        if self.min_samples < 1:
            raise ValueError(f"{self.name}: min_samples must be at least 1.")

    def applies_to(self, strategy: Strategy) -> bool:
        """Whether the strategy can observe it."""
        return strategy is Strategy.SHADOW or not self.name.paired

    def required_in(self, strategy: Strategy) -> bool:
        """An A/B test is made to decide on accuracy, so there it is always required."""
        return self.required or (strategy is Strategy.AB and self.name is MetricName.ACCURACY)

    def blocks(self, strategy: Strategy, samples: float) -> bool:
        """
        Whether a step cannot pass before this metric is Successful: if it is required, and in
        shadow as soon as there is data. Feedback on pairs decides on accuracy soon; on separate
        arms it takes a hundred times as much, so in a canary an optional accuracy can only fail a
        step.
        """
        seen = strategy is Strategy.SHADOW and samples >= self.min_samples
        return self.required_in(strategy) or seen


DEFAULT_METRICS = (
    Metric(MetricName.ERROR_RATE, tolerated=0.01, min_samples=20),
    Metric(MetricName.LATENCY, tolerated=0.2, min_samples=50),
    Metric(MetricName.ACCURACY, tolerated=0.01, min_samples=50, required=False),
    Metric(MetricName.AGREEMENT, tolerated=0.15, min_samples=50),
    Metric(MetricName.SCORE_DRIFT, tolerated=0.2, min_samples=50, required=False),
)
