"""Which of many rollouts fail, and which pass their step, at one check."""

import math

import numpy as np

from gateway.rollouts.statistics.metrics import MetricName
from perf.rollout_simulation.bounds import Metrics
from perf.rollout_simulation.traffic import Counts
from perf.rollout_simulation.worlds import ALPHA, DEFAULTS, Array

PAIR_VALUES = np.array(
    [0.0, 0.5, 1.0]
)  # only the challenger right, neither or both, only the champion
DRIFT_VALUES = np.array([0.0, 0.5, 1.0])


def worse_than_tolerated(metrics: Metrics, seen: Counts, need: float) -> Array:
    """Which rollouts fail now."""
    tolerated = {name: metric.tolerated for name, metric in DEFAULTS.items()}

    def enough(name: MetricName, first: Array, second: Array) -> Array:
        return np.minimum(first, second) >= DEFAULTS[name].min_samples

    failed = metrics.rates(
        (seen.e, seen.n, seen.e2, seen.n2), tolerated[MetricName.ERROR_RATE], need
    ) & enough(MetricName.ERROR_RATE, seen.n, seen.n2)
    failed |= metrics.latency(seen.latency, seen.latency2, need, worse=True) & enough(
        MetricName.LATENCY, seen.n - seen.e, seen.n2 - seen.e2
    )
    failed |= metrics.rates(
        (seen.wrong, seen.labelled, seen.wrong2, seen.labelled2),
        tolerated[MetricName.ACCURACY],
        need,
    ) & enough(MetricName.ACCURACY, seen.labelled, seen.labelled2)
    if seen.pairs.any():
        judged = seen.judged.sum(axis=1)
        failed |= metrics.means(
            PAIR_VALUES, seen.judged, (1 + tolerated[MetricName.ACCURACY]) / 2, need
        ) & enough(MetricName.ACCURACY, judged, judged)
        failed |= metrics.one_arm(
            seen.disagreed, seen.pairs, tolerated[MetricName.AGREEMENT], need
        ) & enough(MetricName.AGREEMENT, seen.pairs, seen.pairs)
        failed |= metrics.means(
            DRIFT_VALUES, seen.drift, tolerated[MetricName.SCORE_DRIFT], need
        ) & enough(MetricName.SCORE_DRIFT, seen.pairs, seen.pairs)
    return failed


def shown_not_worse(
    metrics: Metrics, seen: Counts, shadow: Array, accuracy: Array, min_samples: int
) -> Array:
    """Which rollouts pass their step now: every required metric, enough samples."""
    need = math.log(1 / ALPHA)
    tolerated = {name: metric.tolerated for name, metric in DEFAULTS.items()}
    passed = seen.n2 >= min_samples
    rows = np.flatnonzero(passed)

    found = np.zeros(len(passed), dtype=bool)

    def narrow(ok: Array) -> None:
        nonlocal rows
        rows = rows[ok]

    def at(*counts: Array) -> tuple[Array, ...]:
        return tuple(count[rows] for count in counts)

    agree = np.ones(len(rows), dtype=bool)
    inside = np.flatnonzero(shadow[rows])
    agree[inside] = metrics.one_arm(
        (seen.pairs - seen.disagreed)[rows][inside],
        seen.pairs[rows][inside],
        1 - tolerated[MetricName.AGREEMENT],
        need,
    )
    narrow(agree)
    for name, values, counts, least in (
        (MetricName.ACCURACY, PAIR_VALUES, seen.judged, (1 + tolerated[MetricName.ACCURACY]) / 2),
        (MetricName.SCORE_DRIFT, DRIFT_VALUES, seen.drift, tolerated[MetricName.SCORE_DRIFT]),
    ):  # optional, but in shadow they block as soon as there is data
        open_ = shadow[rows] & (counts[rows].sum(axis=1) >= DEFAULTS[name].min_samples)
        shown = metrics.means(1 - values, counts[rows], 1 - least, need)
        narrow(shown | ~open_)
    right = np.ones(len(rows), dtype=bool)
    inside = np.flatnonzero(accuracy[rows])
    arms = (seen.wrong, seen.labelled, seen.wrong2, seen.labelled2)
    right[inside] = metrics.not_worse(
        tuple(count[rows][inside] for count in arms), tolerated[MetricName.ACCURACY], need
    )
    narrow(right)
    narrow(
        metrics.not_worse(
            at(seen.e, seen.n, seen.e2, seen.n2), tolerated[MetricName.ERROR_RATE], need
        )
    )
    if not len(rows):
        return found
    narrow(metrics.latency(seen.latency[rows], seen.latency2[rows], need, worse=False))
    found[rows] = True
    return found
