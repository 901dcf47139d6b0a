"""Counts by bucket: of latencies, whose buckets grow by 0.22 %, and of distances of scores."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

LATENCY_BUCKETS = 6_400
LATENCY_BUCKETS_PER_DOUBLING = 320
SHORTEST_LATENCY_S = 1e-4  # the last bucket begins at 104 s
DISTANCE_BUCKETS = 50


def latency_bucket(latency_s: float) -> int:
    """The bucket of a latency in seconds, 0 to LATENCY_BUCKETS - 1."""
    if latency_s <= SHORTEST_LATENCY_S:
        return 0
    place = int(LATENCY_BUCKETS_PER_DOUBLING * math.log2(latency_s / SHORTEST_LATENCY_S))
    return min(place, LATENCY_BUCKETS - 1)


def latency_edges_s() -> npt.NDArray[np.float64]:
    """The lower edges of all latency buckets but the first, in seconds; [LATENCY_BUCKETS - 1]."""
    steps = np.arange(1, LATENCY_BUCKETS) / LATENCY_BUCKETS_PER_DOUBLING
    return np.asarray(SHORTEST_LATENCY_S * 2**steps, dtype=np.float64)


def distance_bucket(distance: float) -> int:
    """The bucket of a distance of two score vectors in [0, 1] (total variation, for example)."""
    return min(max(int(distance * DISTANCE_BUCKETS), 0), DISTANCE_BUCKETS - 1)


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
        """A percentile of a histogram of latencies, in seconds, to 0.22 %; None without data."""
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


NOTHING = Histogram()
