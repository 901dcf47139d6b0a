"""
Few callers that stay on their side: A/A where each caller has errors and times of its own.

Callers ask with Zipf's frequencies; a caller's rate of errors and its typical time are drawn once.
Each counts once, when its first `BLOCK` requests are complete, as the product does it; beside it
what comes out if every request counts.
"""

import math
from typing import Any

import numpy as np

from gateway.rollouts.live.callers import BLOCK
from gateway.rollouts.statistics import evidence
from gateway.rollouts.statistics.histogram import (
    LATENCY_BUCKETS,
    LATENCY_BUCKETS_PER_DOUBLING,
    SHORTEST_LATENCY_S,
)
from gateway.rollouts.statistics.latency_limits import latency_limits
from gateway.rollouts.statistics.metrics import MetricName
from perf.rollout_simulation.worlds import (
    ALPHA,
    CHAMPION_ERRORS,
    DAY_S,
    DEFAULTS,
    MEDIAN_S,
    SPREAD,
    Array,
)

REQUESTS_PER_S = 10.0
LOOKS = 48  # in the first day, closer together at its beginning
ERRORS_SPREAD, TIMES_SPREAD = 1.0, 0.5  # of a caller's own rate and median, logarithms
MOST_REQUESTS = 400  # of a caller, where every request counts; more would only make it worse
COMPARISONS = 4


def simulate_callers(callers: int, *, runs: int, seed: int, each_counts: bool) -> dict[str, Any]:
    """
    Hold many A/A rollouts at 50 % for a day.

    Args:
        callers: How many there are.
        runs: How many rollouts.
        seed: Of the random numbers.
        each_counts: Count every request, and not every caller once.

    Returns:
        Shares that were rolled back, and that could have been promoted, within the day.
    """
    rng = np.random.default_rng(seed)
    needs = math.log(COMPARISONS / ALPHA), math.log(1 / ALPHA)
    ended = {"rolled back": 0, "promoted": 0}
    for _ in range(runs):
        failed, passed = _looks(_draw(rng, callers, each_counts=each_counts), needs)
        first = [int(np.argmax(which)) if which.any() else LOOKS for which in (failed, passed)]
        if first[0] < LOOKS and first[0] <= first[1]:
            ended["rolled back"] += 1
        elif first[1] < LOOKS:
            ended["promoted"] += 1
    return {
        "callers": callers,
        "runs": runs,
        "seed": seed,
        "each request counts": each_counts,
        **{name: count / runs for name, count in ended.items()},
    }


def _draw(rng: np.random.Generator, callers: int, *, each_counts: bool) -> list[Array]:
    """
    Draw one rollout.

    Returns:
        Of the champion, then of the challenger: requests and errors at each look, shape [LOOKS],
        and counts by latency bucket, shape [LOOKS, LATENCY_BUCKETS]; each with its weights.
    """
    share = 1 / np.arange(1, callers + 1)
    per_s = REQUESTS_PER_S * share / share.sum()
    wrong = np.minimum(0.5, CHAMPION_ERRORS * np.exp(ERRORS_SPREAD * rng.normal(size=callers)))
    median_s = MEDIAN_S * np.exp(TIMES_SPREAD * rng.normal(size=callers))
    ours = rng.random(callers) < 0.5
    at_s = np.geomspace(60, DAY_S, LOOKS)
    most = MOST_REQUESTS if each_counts else BLOCK
    arrived_s = np.cumsum(rng.exponential(1 / per_s[:, None], (callers, most)), axis=1)
    if not each_counts:
        arrived_s = np.repeat(arrived_s[:, -1:], BLOCK, axis=1)  # none before all
    weight = 1.0 if each_counts else 1 / BLOCK
    failed = rng.random(arrived_s.shape) < wrong[:, None]
    times_s = median_s[:, None] * np.exp(SPREAD * rng.normal(size=arrived_s.shape))
    places = np.clip(
        LATENCY_BUCKETS_PER_DOUBLING * np.log2(times_s / SHORTEST_LATENCY_S), 0, LATENCY_BUCKETS - 1
    ).astype(int)
    look = np.searchsorted(at_s, arrived_s)
    used = slice(int(places.min()), int(places.max()) + 1)
    found: list[Array] = []
    for arm in (~ours, ours):
        inside = (look < LOOKS) & arm[:, None]
        answered = inside & ~failed
        latency = np.zeros((LOOKS, LATENCY_BUCKETS))
        np.add.at(latency, (look[answered], places[answered]), weight)
        np.cumsum(latency[:, used], axis=0, out=latency[:, used])
        requests = np.bincount(look[inside], minlength=LOOKS) * weight
        errors = np.bincount(look[inside & failed], minlength=LOOKS) * weight
        found += [np.cumsum(requests), np.cumsum(errors), latency]
    return found


def _looks(counts: list[Array], needs: tuple[float, float]) -> tuple[Array, Array]:
    """At which looks a rollout fails, and the first at which it passes, if that is before."""
    n, e, times, n2, e2, times2 = counts
    tolerated = DEFAULTS[MetricName.ERROR_RATE].tolerated
    some = (n > 0) & (n2 > 0)
    failed = some & (evidence.difference_above(e, n, e2, n2, tolerated) >= needs[0])
    passed = some & (evidence.difference_below(e, n, e2, n2, tolerated) >= needs[1])
    used = np.flatnonzero(times[-1] + times2[-1])
    if len(used):
        near = _percentiles(times, times2, used[:: max(1, len(used) // 24)])
        failed |= _exactly(some & (near[0] >= needs[0]), counts, needs[0], which=0)
        passed &= _exactly(passed & (near[1] >= needs[1]), counts, needs[1], which=1)
    return failed, passed


def _exactly(perhaps: Array, counts: list[Array], need: float, *, which: int) -> Array:
    """The first of some looks at which the evidence on the latency suffices."""
    found = np.zeros(LOOKS, dtype=bool)
    for look in np.flatnonzero(perhaps):
        if _percentiles(counts[2][look], counts[5][look], None)[which] >= need:
            found[look] = True
            break
    return found


def _percentiles(times: Array, times2: Array, at: Array | None) -> tuple[Array, Array]:
    """
    Evidence for slower, and for not slower. With `at` only these buckets are looked at, in one of
    which the champion's percentile may lie: at least the evidence itself.
    """
    surely, perhaps = latency_limits(DEFAULTS[MetricName.LATENCY])
    if at is None:
        return evidence.percentiles(times, times2, percentile=95, surely=surely, perhaps=perhaps)
    # How many lie at or above each of a few buckets, without adding up all of the others.
    wanted = np.unique(np.concatenate([[0], at, at + 1, surely[at], perhaps[at]]))
    wanted = wanted[wanted < LATENCY_BUCKETS]

    def above(of: Array, buckets: Array) -> Array:
        parts = np.add.reduceat(of, wanted, axis=1)
        from_each = np.cumsum(parts[:, ::-1], axis=1)[:, ::-1]
        from_each = np.concatenate([from_each, np.zeros((len(of), 1))], axis=1)
        return np.asarray(from_each[:, np.searchsorted(wanted, buckets)])

    trials, trials2 = times.sum(axis=1)[:, None], times2.sum(axis=1)[:, None]
    slower = evidence.both_arms(
        evidence.rate_below(above(times, at), trials, 0.05),
        evidence.rate_above(above(times2, surely[at]), trials2, 0.05),
    )
    quick = evidence.both_arms(
        evidence.rate_above(above(times, at + 1), trials, 0.05),
        evidence.rate_below(above(times2, perhaps[at]), trials2, 0.05),
    )
    return slower.min(axis=1), quick.min(axis=1)
