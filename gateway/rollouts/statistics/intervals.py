"""
Intervals of shares, and of the difference of two shares of the same images.

Sources: Tango, "Equivalence test and confidence interval for the difference in proportions for the
paired-sample design" (Statistics in Medicine 1998); Fagerland, Lydersen & Laake, "Recommended tests
and confidence intervals for paired binomial proportions" (2014); Wilson (JASA 1927).
"""

import math
from collections.abc import Callable
from statistics import NormalDist

CONFIDENCE = 0.95

Interval = tuple[float, float]


def wilson_interval(hits: int, trials: int, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's score interval for a rate."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = hits / trials
    centre = rate + z * z / (2 * trials)
    half = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Exact two-sided McNemar test: twice the smaller tail of a fair coin, at most 1."""
    tosses = only_first + only_second
    fewer = min(only_first, only_second)
    log_coin = math.lgamma(tosses + 1) - tosses * math.log(2)
    tail = math.fsum(
        math.exp(log_coin - math.lgamma(heads + 1) - math.lgamma(tosses - heads + 1))
        for heads in range(fewer + 1)
    )
    return min(1.0, 2 * tail)


def tango_interval(
    only_first: int, only_second: int, pairs: int, confidence: float = CONFIDENCE
) -> Interval:
    """
    Tango's score interval for a paired difference of rates, first minus second.

    Args:
        only_first: Pairs in which only the first is right.
        only_second: Pairs in which only the second is right.
        pairs: All pairs.
        confidence: Two-sided.

    Returns:
        The differences that the score test does not reject.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    estimate = (only_first - only_second) / pairs

    def score(difference: float) -> float:
        """Tango's statistic; falls as the difference grows."""
        a = 2 * pairs
        b = (2 * pairs - only_first + only_second) * difference - only_first - only_second
        c = -only_second * difference * (1 - difference)
        second_rate = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
        variance = pairs * (2 * second_rate + difference * (1 - difference))
        distance = only_first - only_second - pairs * difference
        return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance)

    lower = -1.0 if estimate <= -1 else _crossing(lambda d: score(d) - z, -1.0, estimate)
    upper = 1.0 if estimate >= 1 else _crossing(lambda d: score(d) + z, estimate, 1.0)
    return lower, upper


def _crossing(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function changes sign, by bisection to full precision."""
    for _ in range(60):
        middle = (low + high) / 2
        if falling(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
