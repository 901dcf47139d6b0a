"""Which of many rollouts fail, are held, and pass their step, at one check."""

import math
from dataclasses import dataclass

import numpy as np

from gateway.rollouts.statistics.metrics import MetricName
from perf.rollout_simulation import accuracy
from perf.rollout_simulation.bounds import Metrics
from perf.rollout_simulation.traffic import Counts
from perf.rollout_simulation.worlds import ALPHA, DEFAULTS, Array, World

DRIFT_VALUES = np.array([0.0, 0.5, 1.0])
_TOLERATED = {name: metric.tolerated for name, metric in DEFAULTS.items()}


@dataclass(frozen=True)
class Steps:
    """Where each rollout is: what kind of step, and whether the promotion follows."""

    shadow: Array
    test: Array
    last: Array
    min_samples: int


def _enough(name: MetricName, *sides: Array) -> Array:
    return np.asarray(np.minimum.reduce(sides) >= DEFAULTS[name].min_samples)


def _timed(seen: Counts) -> Array:
    """Where there is enough for the latency: times of both, and requests."""
    some = seen.latency.any(axis=1) & seen.latency2.any(axis=1)
    return some & _enough(MetricName.LATENCY, seen.n, seen.n2)


def worse_than_tolerated(metrics: Metrics, world: World, seen: Counts, need: float) -> Array:
    """Which rollouts are rolled back now."""
    failed = metrics.rates(
        (seen.e, seen.n, seen.e2, seen.n2), _TOLERATED[MetricName.ERROR_RATE], need
    ) & _enough(MetricName.ERROR_RATE, seen.n, seen.n2)
    failed |= metrics.latency(seen.latency, seen.latency2, need, worse=True) & _timed(seen)
    failed |= metrics.one_arm(seen.slow, seen.windows, 0.5, need) & _enough(
        MetricName.COMPUTE, seen.windows
    )
    labelled = _enough(MetricName.ACCURACY, accuracy.labels(seen, world))
    failed |= accuracy.shown(seen, world, need, worse=True, asked=labelled & ~failed)
    if world.lost_class:
        failed |= accuracy.class_lost(seen, need) & (seen.pairs > 0)
    return failed


def shown_not_worse(
    metrics: Metrics, world: World, seen: Counts, steps: Steps, need_to_fail: float
) -> tuple[Array, Array]:
    """Which rollouts pass their step now, and which are held by a metric that explains."""
    need = math.log(1 / ALPHA)
    late = world.expected and (world.delay_s > 0 or world.complaints)
    labelled = world.expected | accuracy.any_label(seen)
    asked = _enough(MetricName.ACCURACY, accuracy.labels(seen, world)) & (seen.shown == 0)
    right = accuracy.shown(seen, world, need, worse=False, asked=asked) | (seen.shown > 0)
    seen.shown[:] = right
    labels_decide = right | (labelled & (not late))
    alike = _alike(metrics, seen, steps.shadow, need)
    unlike = _unlike(metrics, seen, need_to_fail) & steps.shadow
    held = unlike & ~labels_decide
    accuracy_blocks = steps.test | (labelled & (steps.last | (steps.shadow & (not late))))
    passed = seen.n2 >= steps.min_samples
    passed &= ~held & (alike | labels_decide) & (right | ~accuracy_blocks)
    rows = np.flatnonzero(passed)

    def narrow(ok: Array) -> None:
        nonlocal rows
        rows = rows[ok]

    def at(*counts: Array) -> tuple[Array, ...]:
        return tuple(count[rows] for count in counts)

    narrow(
        metrics.not_worse(
            at(seen.e, seen.n, seen.e2, seen.n2), _TOLERATED[MetricName.ERROR_RATE], need
        )
    )
    windows, quicker = at(seen.windows, seen.windows - seen.slow)
    measured = windows >= DEFAULTS[MetricName.COMPUTE].min_samples
    narrow(~measured | metrics.one_arm(quicker, windows, 0.5, need))
    measured = seen.windows[rows] >= DEFAULTS[MetricName.COMPUTE].min_samples
    timed = rows[~measured & _timed(seen)[rows]]
    quick = metrics.latency(seen.latency[timed], seen.latency2[timed], need, worse=False)
    narrow(measured | np.isin(rows, timed[quick]))
    found = np.zeros(len(passed), dtype=bool)
    found[rows] = True
    return found, held


def _alike(metrics: Metrics, seen: Counts, shadow: Array, need: float) -> Array:
    """Where likeness lets a step pass: everywhere but in a shadow."""
    agrees = metrics.one_arm(
        seen.pairs - seen.disagreed, seen.pairs, 1 - _TOLERATED[MetricName.AGREEMENT], need
    )
    drifts = metrics.means(
        1 - DRIFT_VALUES, seen.drift, 1 - _TOLERATED[MetricName.SCORE_DRIFT], need
    )
    few = ~_enough(MetricName.SCORE_DRIFT, seen.drift.sum(axis=1))
    return ~shadow | (agrees & (drifts | few))


def _unlike(metrics: Metrics, seen: Counts, need: float) -> Array:
    """Where the answers are shown to be other than tolerated."""
    unlike = metrics.one_arm(seen.disagreed, seen.pairs, _TOLERATED[MetricName.AGREEMENT], need)
    unlike |= metrics.means(DRIFT_VALUES, seen.drift, _TOLERATED[MetricName.SCORE_DRIFT], need)
    return unlike & _enough(MetricName.AGREEMENT, seen.pairs)
