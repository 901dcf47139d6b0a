"""What may be true about a challenger, and how its requests are distributed."""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gateway.rollouts.statistics.metrics import DEFAULT_METRICS, MetricName
from gateway.rollouts.statistics.observations import (
    LATENCY_BUCKETS_PER_DOUBLING,
    SHORTEST_LATENCY_S,
)

Array: TypeAlias = npt.NDArray[Any]
CHECK_S = 10
CHECKS_A_DAY = 86_400 // CHECK_S
MEDIAN_S, SPREAD = 0.060, 0.3  # log-normal latency of the champion: p95 98 ms
CHAMPION_ERRORS, CHAMPION_WRONG = 0.002, 0.10
DEFAULTS = {metric.name: metric for metric in DEFAULT_METRICS}
ALPHA = 0.05


@dataclass(frozen=True)
class World:
    """The truth about a challenger; `lost`, `won`: only the champion, only the challenger right."""

    name: str
    errors: float = CHAMPION_ERRORS
    slower: float = 1.0
    lost: float = 0.0
    won: float = 0.0
    disagrees: float = 0.0
    drift: float = 0.02
    requests_per_s: float = 10.0
    feedback: float = 0.10
    incidents: bool = False

    @property
    def wrong(self) -> float:
        """Rate of wrong answers of the challenger."""
        return CHAMPION_WRONG + self.lost - self.won


SAME = World("the same version (A/A)")
EQUAL = World("retrained, equally good", lost=0.03, won=0.03, disagrees=0.07, drift=0.06)
BETTER = World("better: accuracy +3 points", lost=0.02, won=0.05, disagrees=0.08, drift=0.06)
WORSE = World("worse: accuracy -5 points", lost=0.07, won=0.02, disagrees=0.11, drift=0.10)
SLOW = World("slow: latency +50 %", slower=1.5)
FAILING = World("failing: 5 % errors", errors=0.05)
FLIPPED = World("flipped labels", lost=0.88, won=0.08, disagrees=0.97, drift=0.85)
WORLDS = (SAME, EQUAL, BETTER, WORSE, SLOW, FAILING, FLIPPED)
# Exactly as bad as tolerated, in every metric at once: the hardest challenger not to roll back.
EDGE = World(
    "exactly as bad as tolerated",
    errors=CHAMPION_ERRORS + DEFAULTS[MetricName.ERROR_RATE].tolerated,
    slower=1 + DEFAULTS[MetricName.LATENCY].tolerated,
    lost=0.04,
    won=0.04 - DEFAULTS[MetricName.ACCURACY].tolerated,
    disagrees=DEFAULTS[MetricName.AGREEMENT].tolerated,
    drift=DEFAULTS[MetricName.SCORE_DRIFT].tolerated,
)
INCIDENTS = World("the same version, an incident every hour", incidents=True)
QUIET = World("the same version, one request in 20 s", requests_per_s=0.05)
# Only buckets from the champion's p75 on are drawn one by one; all below are one.
LOW = math.floor(
    LATENCY_BUCKETS_PER_DOUBLING
    * math.log2(MEDIAN_S * math.exp(SPREAD * NormalDist().inv_cdf(0.75)) / SHORTEST_LATENCY_S)
)
TAIL = 56


def latency_shares(slower: float, first: int = LOW, buckets: int = TAIL) -> Array:
    """Probability of each latency bucket from `first` on; the ends take the rest."""
    edges = SHORTEST_LATENCY_S * 2 ** (
        (first + np.arange(1, buckets)) / LATENCY_BUCKETS_PER_DOUBLING
    )
    normal = NormalDist(math.log(MEDIAN_S * slower), SPREAD)
    below = [normal.cdf(math.log(edge)) for edge in edges]
    return np.diff([0.0, *below, 1.0])


def drift_shares(mean: float) -> Array:
    """A spread-out distribution of score distances with this mean."""
    return np.array([1 - 1.5 * mean, mean, 0.5 * mean]) if mean < 0.5 else np.array([0, 0.3, 0.7])
