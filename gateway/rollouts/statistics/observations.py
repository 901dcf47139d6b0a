"""
What has been observed in one step of a rollout: small counts that are merged by addition.

No sample is kept. Every gateway counts for itself and the controller adds the counts up, so it does
not matter who saw which request or in which order. Latencies go into logarithmic buckets (growth
2^(1/32), so a percentile is known to 2.2 %), score distances into fifty equal ones.

Counts are floats only so that expected counts can be planned with; observed ones are whole.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gateway.rollouts.stored import Stored

LATENCY_BUCKETS = 640
LATENCY_BUCKETS_PER_DOUBLING = 32
SHORTEST_LATENCY_S = 1e-4  # the last bucket begins at 103 s
DISTANCE_BUCKETS = 50


def latency_bucket(latency_s: float) -> int:
    """The bucket of a latency in seconds, 0 to LATENCY_BUCKETS - 1."""
    if latency_s <= SHORTEST_LATENCY_S:
        return 0
    place = int(LATENCY_BUCKETS_PER_DOUBLING * math.log2(latency_s / SHORTEST_LATENCY_S))
    return min(place, LATENCY_BUCKETS - 1)


def distance_bucket(distance: float) -> int:
    """The bucket of a distance of two score vectors in [0, 1] (total variation, for example)."""
    return min(max(int(distance * DISTANCE_BUCKETS), 0), DISTANCE_BUCKETS - 1)


def buckets_in_ratio(ratio: float) -> float:
    """By how many latency buckets a latency moves when it is multiplied by `ratio`."""
    return LATENCY_BUCKETS_PER_DOUBLING * math.log2(ratio)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts by bucket; buckets that are not named are empty."""

    counts: Mapping[int, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """Number of observations."""
        return sum(self.counts.values())

    def dense(self, buckets: int) -> npt.NDArray[np.float64]:
        """All buckets; float64, shape [buckets]."""
        row = np.zeros(buckets)
        for bucket, count in self.counts.items():
            row[min(bucket, buckets - 1)] += count
        return row

    def latency_s(self, percentile: float) -> float | None:
        """A percentile of a histogram of latencies, in seconds, to 2.2 %; None without data."""
        total = self.total
        if not total:
            return None
        seen = 0.0
        place = 0
        for place in sorted(self.counts):
            seen += self.counts[place]
            if seen >= total * percentile / 100:
                break
        return float(SHORTEST_LATENCY_S * 2 ** ((place + 0.5) / LATENCY_BUCKETS_PER_DOUBLING))

    def __add__(self, other: "Histogram") -> "Histogram":
        merged = dict(self.counts)
        for bucket, count in other.counts.items():
            merged[bucket] = merged.get(bucket, 0) + count
        return Histogram(merged)

    def scaled(self, factor: float) -> "Histogram":
        """Every count times `factor`."""
        return Histogram({bucket: count * factor for bucket, count in self.counts.items()})


@dataclass(frozen=True, slots=True)
class Arm:
    """
    One version's answers.

    Attributes:
        requests: Requests that the version was asked, answered or failed.
        errors: Those that it failed, timeouts included. A caller's own mistakes are not counted.
        latencies: Of those that it answered.
        labelled: Answers whose true class is known (feedback).
        wrong: Those of them that were wrong.
    """

    requests: float = 0
    errors: float = 0
    latencies: Histogram = Histogram()
    labelled: float = 0
    wrong: float = 0

    def __add__(self, other: "Arm") -> "Arm":
        return Arm(
            requests=self.requests + other.requests,
            errors=self.errors + other.errors,
            latencies=self.latencies + other.latencies,
            labelled=self.labelled + other.labelled,
            wrong=self.wrong + other.wrong,
        )

    def scaled(self, factor: float) -> "Arm":
        """Every count times `factor`."""
        return Arm(
            requests=self.requests * factor,
            errors=self.errors * factor,
            latencies=self.latencies.scaled(factor),
            labelled=self.labelled * factor,
            wrong=self.wrong * factor,
        )


@dataclass(frozen=True, slots=True)
class Pairs:
    """
    Requests that both versions answered (shadow).

    Attributes:
        compared: Pairs of answers.
        disagreed: Pairs with different categories.
        distances: Distances of the two score vectors, in [0, 1].
        labelled: Pairs whose true class is known.
        only_champion_right: Labelled pairs that the champion got right and the challenger wrong.
        only_challenger_right: Labelled pairs the other way round.
    """

    compared: float = 0
    disagreed: float = 0
    distances: Histogram = Histogram()
    labelled: float = 0
    only_champion_right: float = 0
    only_challenger_right: float = 0

    def __add__(self, other: "Pairs") -> "Pairs":
        return Pairs(
            compared=self.compared + other.compared,
            disagreed=self.disagreed + other.disagreed,
            distances=self.distances + other.distances,
            labelled=self.labelled + other.labelled,
            only_champion_right=self.only_champion_right + other.only_champion_right,
            only_challenger_right=self.only_challenger_right + other.only_challenger_right,
        )

    def scaled(self, factor: float) -> "Pairs":
        """Every count times `factor`."""
        return Pairs(
            compared=self.compared * factor,
            disagreed=self.disagreed * factor,
            distances=self.distances.scaled(factor),
            labelled=self.labelled * factor,
            only_champion_right=self.only_champion_right * factor,
            only_challenger_right=self.only_challenger_right * factor,
        )


@dataclass(frozen=True, slots=True)
class Observations(Stored):
    """Everything counted since one step began, over all gateways."""

    champion: Arm = Arm()
    challenger: Arm = Arm()
    pairs: Pairs = Pairs()

    def __add__(self, other: "Observations") -> "Observations":
        return Observations(
            champion=self.champion + other.champion,
            challenger=self.challenger + other.challenger,
            pairs=self.pairs + other.pairs,
        )

    def scaled(self, factor: float) -> "Observations":
        """Every count times `factor`: what to expect after `factor` requests."""
        return Observations(
            champion=self.champion.scaled(factor),
            challenger=self.challenger.scaled(factor),
            pairs=self.pairs.scaled(factor),
        )
