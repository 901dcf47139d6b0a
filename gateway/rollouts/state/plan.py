"""
What a rollout is asked to do.

Stages and their steps, how often they are judged, what is tolerated, which labels are expected, and
who promotes. Every number is finite and bounded: a plan that was accepted can be stored, shown and
carried out.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from gateway.errors import RolloutInvalid
from gateway.rollouts.statistics.metrics import DEFAULT_METRICS, Metric, MetricName, Strategy

DEFAULT_STEPS: Mapping[Strategy, tuple[float, ...]] = {
    Strategy.SHADOW: (100.0,),
    Strategy.CANARY: (1.0, 5.0, 25.0, 50.0, 100.0),
    Strategy.AB: (50.0,),
}
DAY_S = 86_400.0
# The largest that a plan may ask for.
MOST_INTERVAL_S = 7 * DAY_S
MOST_DEADLINE_S = 366 * DAY_S
MOST_SAMPLES = 1_000_000_000
MOST_FAILED_CHECKS = 1_000
MOST_STAGES, MOST_STEPS = 10, 100
LEAST_ALPHA, MOST_ALPHA = 1e-6, 0.5


class LabelKind(StrEnum):
    """Which answers get a label: a sample of all, or those that somebody complained about."""

    SAMPLE = "sample"
    COMPLAINTS = "complaints"


@dataclass(frozen=True, slots=True)
class Labels:
    """
    What the plan expects of feedback. With it, accuracy is required.

    Attributes:
        delay_s: How long after its answer a label comes, in seconds. Above 0 the shadow does not
            wait for labels; the last step does, and labels of every earlier step count there.
        fraction: The share of the answers that get a label.
        kind: Whether labels are a sample of all answers, or complaints.
    """

    delay_s: float = 0.0
    fraction: float = 0.1
    kind: LabelKind = LabelKind.SAMPLE

    def __post_init__(self) -> None:
        _require("labels.delay_s", self.delay_s, 0, MOST_DEADLINE_S)
        _require("labels.fraction", self.fraction, 1e-6, 1)


@dataclass(frozen=True, slots=True)
class Stage:
    """One strategy and its steps: weights, or for shadow the shares of requests mirrored."""

    strategy: Strategy
    steps: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.steps:
            raise RolloutInvalid(f"{self.strategy} has no steps.")
        if len(self.steps) > MOST_STEPS:
            raise RolloutInvalid(f"{self.strategy} has more than {MOST_STEPS} steps.")
        if not all(0 < step <= 100 for step in self.steps):
            raise RolloutInvalid("A step lies above 0 and is at most 100.")
        if any(
            later <= earlier for earlier, later in zip(self.steps, self.steps[1:], strict=False)
        ):
            raise RolloutInvalid("Each step is larger than the one before.")
        if not self.judged_steps:
            raise RolloutInvalid(
                f"{self.strategy} needs a step below 100: at 100 there is nothing to compare with."
            )

    @property
    def judged_steps(self) -> tuple[float, ...]:
        """The steps that can be judged; at a weight of 100 no champion is left to compare with."""
        if self.strategy is Strategy.SHADOW:
            return self.steps
        return tuple(step for step in self.steps if step < 100)

    @classmethod
    def of(cls, strategy: str, steps: Sequence[float] | None = None) -> Self:
        """A stage with the strategy's default steps unless others are given."""
        try:
            kind = Strategy(strategy)
        except ValueError:
            names = ", ".join(Strategy)
            raise RolloutInvalid(f"Unknown strategy {strategy!r}; there are {names}.") from None
        return cls(kind, DEFAULT_STEPS[kind] if steps is None else tuple(map(float, steps)))


@dataclass(frozen=True, slots=True)
class Plan:
    """
    What was asked for; never changes.

    Attributes:
        stages: One after the other, for example shadow, then canary.
        interval_s: Seconds between two checks, and the least that a step lasts.
        threshold: Failed checks that end the rollout.
        min_samples: Answers of the challenger before a step can pass.
        deadline_s: Seconds after which an undecided step waits.
        auto_promote: Promote without a human when every step has passed.
        metrics: What is compared, and what is tolerated.
        alpha: Bound on a false roll back, and on a false promotion, over the whole rollout.
        labels: What is expected of feedback; None if nothing is known of it.
    """

    stages: tuple[Stage, ...]
    interval_s: float = 10.0
    threshold: int = 1
    min_samples: int = 100
    deadline_s: float = DAY_S
    auto_promote: bool = True
    metrics: tuple[Metric, ...] = DEFAULT_METRICS
    alpha: float = 0.05
    labels: Labels | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.stages) <= MOST_STAGES:
            raise RolloutInvalid(f"A rollout has 1 to {MOST_STAGES} stages.")
        _require("interval_s", self.interval_s, 0.01, MOST_INTERVAL_S)
        _require("deadline_s", self.deadline_s, self.interval_s, MOST_DEADLINE_S)
        _require("threshold", self.threshold, 1, MOST_FAILED_CHECKS)
        _require("min_samples", self.min_samples, 1, MOST_SAMPLES)
        _require("alpha", self.alpha, LEAST_ALPHA, MOST_ALPHA)
        names = [metric.name for metric in self.metrics]
        if len(set(names)) < len(names):
            raise RolloutInvalid("A metric is named twice.")
        for stage in self.stages:
            if not any(
                metric.applies_to(stage.strategy) and metric.required_in(stage.strategy)
                for metric in self.metrics
            ):
                raise RolloutInvalid(f"{stage.strategy} has no required metric that could decide.")

    @property
    def compares_answers(self) -> bool:
        """
        Whether a version that answers wrongly cannot pass: a shadow compares answers, and a plan
        that requires accuracy waits for feedback.
        """
        return (
            self.labels is not None
            or any(stage.strategy is Strategy.SHADOW for stage in self.stages)
            or any(
                metric.name is MetricName.ACCURACY and metric.required_in(stage.strategy)
                for metric in self.metrics
                for stage in self.stages
            )
        )

    @property
    def comparisons(self) -> int:
        """Metrics times judged steps: how many chances for a false roll back there are."""
        return sum(
            len(stage.judged_steps)
            * sum(metric.applies_to(stage.strategy) for metric in self.metrics)
            for stage in self.stages
        )

    def is_last(self, stage: int, step: int) -> bool:
        """Whether nothing but the promotion follows a step."""
        return stage + 1 == len(self.stages) and step + 1 == len(self.stages[stage].judged_steps)


def _require(name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise RolloutInvalid(f"{name} lies between {low:g} and {high:g}.")
