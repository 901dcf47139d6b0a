"""
How many requests a decision needs, from the very functions that decide.

Feed the analysis the counts that are expected after n requests and look for the smallest n at which
the evidence suffices. That is close to the median of what happens; the simulation says how close.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.rollouts.statistics.measures import measure
from gateway.rollouts.statistics.metrics import Metric
from gateway.rollouts.statistics.observations import Observations
from gateway.rollouts.statistics.verdict import Outcome


@dataclass(frozen=True, slots=True)
class SampleSize:
    """After how many requests of the whole traffic which outcome is expected."""

    outcome: Outcome
    requests: int


def requests_to_decide(
    metric: Metric,
    per_request: Observations,
    *,
    earlier: Sequence[Observations] = (),
    complaints: float | None = None,
    comparisons: int,
    alpha: float = 0.05,
    limit: int = 10_000_000,
    precision: float = 0.0,
) -> SampleSize:
    """
    When a metric is expected to decide.

    Args:
        metric: With what it tolerates.
        per_request: What one request of the whole traffic adds on average: at a weight of 5 %, 0.95
            requests of the champion and 0.05 of the challenger.
        earlier, complaints: As for `measure`; counts of earlier steps stay as they are.
        comparisons: As for the analysis.
        alpha: As for the analysis.
        limit: Most requests to look at.
        precision: The result may be too large by this share of itself.

    Returns:
        The earlier of the two decisions; Inconclusive at `limit` if there is none by then.
    """

    def decided(requests: float) -> Outcome:
        seen = per_request.scaled(requests)
        measured = measure(metric, seen, earlier, complaints=complaints)
        if min(measured.champion_samples, measured.challenger_samples) < metric.min_samples:
            return Outcome.INCONCLUSIVE
        if measured.log_worse >= math.log(comparisons / alpha):
            return Outcome.FAILED
        if measured.log_not_worse >= math.log(1 / alpha):
            return Outcome.SUCCESSFUL
        return Outcome.INCONCLUSIVE

    # A request adds at most one sample to each side.
    low, high = metric.min_samples - 1, metric.min_samples
    while decided(high) is Outcome.INCONCLUSIVE:
        if high >= limit:
            return SampleSize(Outcome.INCONCLUSIVE, limit)
        low, high = high, min(2 * high, limit)
    while high - low > max(1.0, precision * high):
        middle = (low + high) // 2
        if decided(middle) is Outcome.INCONCLUSIVE:
            low = middle
        else:
            high = middle
    return SampleSize(decided(high), high)
