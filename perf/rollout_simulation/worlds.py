"""What may be true about a challenger, and how its requests are distributed."""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gateway.rollouts.statistics.histogram import LATENCY_BUCKETS_PER_DOUBLING, SHORTEST_LATENCY_S
from gateway.rollouts.statistics.metrics import DEFAULT_METRICS, MetricName

Array: TypeAlias = npt.NDArray[Any]
CHECK_S = 10.0
DAY_S = 86_400.0
MEDIAN_S, SPREAD = 0.060, 0.3  # log-normal times of the champion: p95 98 ms
CHAMPION_ERRORS, CHAMPION_WRONG = 0.002, 0.10
CLASS_SHARE = 0.1  # of the class that a world may lose
# As the product does it: the share of a shadow's copies whose times are compared; the length of a
# window of computing, and the inferences that it needs of each version.
TIMED, WINDOW_S, WINDOW_RUNS = 0.5, 1.0, 5
DEFAULTS = {metric.name: metric for metric in DEFAULT_METRICS}
ALPHA = 0.05


@dataclass(frozen=True)
class World:
    """
    The truth about a challenger, and about its traffic.

    Attributes:
        name: For people.
        errors: Its rate of errors.
        slower: Its times, as a ratio to the champion's.
        lost, won: Rates of answers that only the champion, only the challenger has right.
        disagrees: Rate of other answers.
        drift: Mean distance of the scores.
        lost_class: Share of one class's answers that only the champion has right.
        requests_per_s: All traffic.
        feedback: Share of the answers that get a label.
        expected: The plan expects labels, or the model has had some.
        delay_s: How late labels come; with `expected`, the plan says so.
        complaints: Only wrong answers that a caller saw are labelled, and the plan says so.
        incidents: Ten minutes in each hour both versions fail ten times as often.
        outage: Rate of requests that fail whichever version is asked.
        check_s: Seconds between two checks.
        days: When to stop looking.
    """

    name: str
    errors: float = CHAMPION_ERRORS
    slower: float = 1.0
    lost: float = 0.0
    won: float = 0.0
    disagrees: float = 0.0
    drift: float = 0.02
    lost_class: float = 0.0
    requests_per_s: float = 10.0
    feedback: float = 0.10
    expected: bool = False
    delay_s: float = 0.0
    complaints: bool = False
    incidents: bool = False
    outage: float = 0.0
    check_s: float = CHECK_S
    days: float = 1.0

    @property
    def wrong(self) -> float:
        """Rate of wrong answers of the challenger."""
        return CHAMPION_WRONG + self.lost - self.won

    @property
    def fixed_size(self) -> float | None:
        """
        Requests with which one paired test of fixed size, looked at once, tells that accuracy is
        worse than tolerated, at 5 % with a power of 95 %. None if it is not worse, or if labels are
        late or no sample.
        """
        loss = self.lost - self.won
        beyond = loss - DEFAULTS[MetricName.ACCURACY].tolerated
        if beyond <= 0 or not self.feedback or self.complaints or self.delay_s:
            return None
        z = NormalDist().inv_cdf(1 - ALPHA)
        return (2 * z / beyond) ** 2 * (self.lost + self.won - loss**2) / self.feedback

    @property
    def checks(self) -> int:
        """How often it is looked at."""
        return round(self.days * DAY_S / self.check_s)


SAME = World("the same version (A/A)")
EQUAL = World(
    "retrained, equally good, 7 % differ", lost=0.03, won=0.03, disagrees=0.07, drift=0.06
)
CHURNED = World(
    "equally good, 16 % differ", lost=0.06, won=0.06, disagrees=0.16, drift=0.12, days=2
)
BETTER = World("better: accuracy +3 points", lost=0.02, won=0.05, disagrees=0.08, drift=0.06)
BETTER_5 = World("+5 points, 20 % differ", lost=0.06, won=0.11, disagrees=0.20, drift=0.15)
BETTER_10 = World("+10 points, 22 % differ", lost=0.03, won=0.13, disagrees=0.22, drift=0.17)
WORSE = World("worse: accuracy -5 points", lost=0.07, won=0.02, disagrees=0.11, drift=0.10)
WORSE_2 = World("worse: accuracy -2 points", lost=0.05, won=0.03, disagrees=0.09, drift=0.08)
SLOW = World("slow: times +50 %", slower=1.5)
SLOW_30 = World("slow: times +30 %", slower=1.3)
SLOW_90 = World("slow: times +90 %", slower=1.9)
SLOW_190 = World("slow: times +190 %", slower=2.9)
FAILING = World("failing: 5 % errors", errors=0.05)
FLIPPED = World("flipped labels", lost=0.88, won=0.08, disagrees=0.97, drift=0.85)
LOSES = World(
    "one class lost, the mean as good", lost=0.09, won=0.09, lost_class=0.9, disagrees=0.13
)
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
OUTAGE = World("the same version, an outage of 20 %", outage=0.2)
QUIET = World("the same version, one request in 20 s", requests_per_s=0.05)
# Only buckets from the champion's p75 on are drawn one by one; all below are one.
LOW = math.floor(
    LATENCY_BUCKETS_PER_DOUBLING
    * math.log2(MEDIAN_S * math.exp(SPREAD * NormalDist().inv_cdf(0.75)) / SHORTEST_LATENCY_S)
)
TAIL = 480


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
