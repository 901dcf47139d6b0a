"""
Which metrics a step waits for, and what a failure of each does.

Labels decide, likeness explains. Where labels are expected, or have come, accuracy must be shown
before the shadow is left (unless labels come late) and before the promotion, and agreement and
score drift block nothing. Where there are none, a failed likeness holds the rollout.

Of the two times, what was computed is the better measure: waiting depends on how much traffic a
version has. A shadow times both versions alike where it has room.
"""

import math
from dataclasses import dataclass

from gateway.rollouts.statistics.measures import Measurement
from gateway.rollouts.statistics.metrics import Metric, MetricName, OnFail, Strategy
from gateway.rollouts.statistics.observations import Observations
from gateway.rollouts.statistics.verdict import Outcome

_EVEN_WEIGHT = 50.0
# A shadow has room if it can time one copy in so many.
_TELLING = 20


@dataclass(frozen=True, slots=True)
class Step:
    """
    Which step is judged, and when.

    Attributes:
        strategy: Of its stage.
        stage, step: Its position.
        number: Of the check, over the whole rollout.
        weight: Share of requests that the challenger answers, 0 to 100; of a shadow, 0.
        last: Nothing but the promotion follows.
        now: Unix seconds.
        age_s: How long the step has lasted.
        left_s: Until its deadline.
    """

    strategy: Strategy
    stage: int = 0
    step: int = 0
    number: int = 1
    weight: float = 0.0
    last: bool = False
    now: float = 0.0
    age_s: float = 0.0
    left_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Situation:
    """What the metrics say together, from which follows what each of them may do."""

    at: Step
    late: bool
    labelled: bool
    outcomes: dict[MetricName, Outcome]
    measured: dict[MetricName, Measurement]
    seen: Observations

    def blocks(self, metric: Metric) -> bool:
        """Whether the step cannot pass before this metric is Successful."""
        if metric.on_fail is OnFail.OBSERVE:
            return False
        if metric.name.explains and self._labels_decide():
            return False
        match metric.name:
            case MetricName.ACCURACY:
                blocks = self._accuracy_blocks(metric)
            case MetricName.LATENCY:
                blocks = self._latency_blocks(metric)
            case MetricName.COMPUTE:
                # The smaller arm has the shorter queue, so its latency alone would pass.
                blocks = metric.required or self.measured[metric.name].challenger_samples > 0
            case MetricName.SCORE_DRIFT:
                blocks = metric.required or self._has_data(metric)
            case _:
                blocks = metric.required_in(self.at.strategy)
        return blocks

    def _accuracy_blocks(self, metric: Metric) -> bool:
        if not (metric.required_in(self.at.strategy) or self.labelled):
            return False
        if self.at.last or self.at.strategy is Strategy.AB:
            return True
        return not self.late and (self.at.strategy is Strategy.SHADOW or metric.required)

    def _latency_blocks(self, metric: Metric) -> bool:
        if not metric.required or self.at.weight > _EVEN_WEIGHT:
            return False
        shadow = self.at.strategy is Strategy.SHADOW
        if self.outcomes.get(MetricName.COMPUTE) is Outcome.SUCCESSFUL:
            return shadow and self._has_data(metric)  # it times both alike; a canary does not
        # Where there is no room, few copies of a shadow can be timed: a later step does it.
        asked, timed = self.seen.challenger_requests, self.measured[metric.name].challenger_samples
        full = asked >= _TELLING * max(timed, metric.min_samples)
        return not shadow or self.at.last or not full

    def on_fail(self, metric: Metric) -> OnFail:
        """What a failure of this metric does."""
        if metric.name.explains and metric.on_fail is OnFail.HOLD and self._labels_decide():
            return OnFail.OBSERVE
        if metric.name is MetricName.LATENCY and self.at.weight > _EVEN_WEIGHT:
            # The larger arm has the longer queue, whichever version it is.
            return OnFail.OBSERVE
        return metric.on_fail

    def _labels_decide(self) -> bool:
        if self.outcomes.get(MetricName.ACCURACY) is Outcome.SUCCESSFUL:
            return True
        return self.labelled and not self.late and MetricName.ACCURACY in self.outcomes

    def _has_data(self, metric: Metric) -> bool:
        measured = self.measured[metric.name]
        fewest = min(measured.champion_samples, measured.challenger_samples)
        return fewest >= metric.min_samples
