"""
What a rollout is asked to do.

Stages and their steps, how often they are judged, what is tolerated, and who promotes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from gateway.errors import RolloutInvalid
from gateway.rollouts.statistics.metrics import DEFAULT_METRICS, Metric, MetricName, Strategy

DEFAULT_STEPS: Mapping[Strategy, tuple[float, ...]] = {
    Strategy.SHADOW: (100.0,),
    Strategy.CANARY: (1.0, 5.0, 25.0, 50.0, 100.0),
    Strategy.AB: (50.0,),
}


@dataclass(frozen=True, slots=True)
class Stage:
    """One strategy and its steps: weights, or for shadow the shares of requests mirrored."""

    strategy: Strategy
    steps: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.steps:
            raise RolloutInvalid(f"{self.strategy} has no steps.")
        if any(not 0 < step <= 100 for step in self.steps):
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
        deadline_s: Seconds after which an undecided step waits for a human.
        auto_promote: Promote without a human when every step has passed.
        metrics: What is compared, and what is tolerated.
        alpha: Bound on a false roll back, and on a false promotion, over the whole rollout.
    """

    stages: tuple[Stage, ...]
    interval_s: float = 10.0
    threshold: int = 1
    min_samples: int = 100
    deadline_s: float = 86_400.0
    auto_promote: bool = True
    metrics: tuple[Metric, ...] = DEFAULT_METRICS
    alpha: float = 0.05

    def __post_init__(self) -> None:
        if not self.stages:
            raise RolloutInvalid("A rollout has at least one stage.")
        if self.interval_s <= 0 or self.deadline_s < self.interval_s:
            raise RolloutInvalid("interval_s is above 0 and deadline_s at least as long.")
        if self.threshold < 1 or self.min_samples < 1:
            raise RolloutInvalid("threshold and min_samples are at least 1.")
        if not 0 < self.alpha < 1:
            raise RolloutInvalid("alpha lies between 0 and 1.")
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
        Whether a version that answers wrongly cannot pass: a shadow compares answers, and a step
        that requires accuracy waits for feedback.
        """
        return any(stage.strategy is Strategy.SHADOW for stage in self.stages) or any(
            metric.name is MetricName.ACCURACY and metric.required_in(stage.strategy)
            for metric in self.metrics
            for stage in self.stages
        )

    @property
    def comparisons(self) -> int:
        """Metrics times judged steps: how many chances for a false roll back there are."""
        return sum(
            len(stage.judged_steps)
            * sum(metric.applies_to(stage.strategy) for metric in self.metrics)
            for stage in self.stages
        )
