"""
Accuracy over a whole rollout, for many rollouts at once: pairs, and the arms of each step.

As `measures._accuracy` does it: the wealth is carried from game to game, and half of it is put
aside before each but the first.
"""

import math

import numpy as np

from gateway.rollouts.statistics import evidence
from gateway.rollouts.statistics.metrics import MetricName
from perf.rollout_simulation.bounds import misses, rates_bound, rates_exact
from perf.rollout_simulation.traffic import Counts
from perf.rollout_simulation.worlds import DEFAULTS, Array, World

PAIR_VALUES = np.array([0.0, 0.5, 1.0])  # the challenger right alone, neither or both, the champion
_TOLERATED = DEFAULTS[MetricName.ACCURACY].tolerated


def labels(seen: Counts, world: World) -> Array:
    """Samples of accuracy of the side that has fewer."""
    if world.complaints:
        return np.asarray(seen.seen.sum(axis=1).min(axis=1))
    arms = np.minimum(seen.arms[..., 0].sum(axis=1), seen.arms[..., 2].sum(axis=1))
    return np.asarray(seen.judged.sum(axis=1) + arms)


def any_label(seen: Counts) -> Array:
    """Which rollouts have had a label."""
    return np.asarray(seen.judged.sum(axis=1) + seen.arms.sum(axis=(1, 2)) > 0)


def shown(seen: Counts, world: World, need: float, *, worse: bool) -> Array:
    """Where accuracy is shown to be worse than tolerated, or not to be."""
    steps = seen.seen.shape[1]
    tolerated = _TOLERATED * (world.feedback if world.complaints else 1)
    pairs = np.zeros(len(seen.seen))
    if not world.complaints:
        values, mean = (PAIR_VALUES, (1 + tolerated) / 2)
        if not worse:
            values, mean = 1 - values, 1 - mean
        pairs = evidence.evidence_above(values, seen.judged, mean)
    paired = (seen.mirrored > 0) & (not world.complaints)
    counts_of, bounds = [], []
    for step in range(steps):
        counts = tuple(seen.arms[:, step, place] for place in (1, 0, 3, 2))
        if world.complaints:
            counts = (counts[0], seen.seen[:, step, 0], counts[2], seen.seen[:, step, 1])
        margin = tolerated if worse else -tolerated
        counts = counts if worse else misses(counts)
        counts_of.append((counts, margin))
        bounds.append(rates_bound(counts, margin))
    found = together(pairs, bounds, paired) >= need
    rows = np.flatnonzero(found)
    if len(rows):
        exact = [
            rates_exact(tuple(count[rows] for count in counts), margin)
            for counts, margin in counts_of
        ]
        found[rows] = together(pairs[rows], exact, paired[rows]) >= need
    return found


def together(pairs: Array, arms: list[Array], paired: Array) -> Array:
    """The wealth that is carried from game to game; `paired`: the pairs were the first."""
    first, *further = arms
    halves = [np.logaddexp(0, game) - math.log(2) for game in (first, *further)]
    begun = np.where(paired, pairs + halves[0], first)
    return np.asarray(sum(halves[1:], begun))


def class_lost(seen: Counts, need: float) -> Array:
    """Where the one class that is looked at is shown to have lost more than tolerated."""
    metric = DEFAULTS[MetricName.CLASS_RECALL]
    enough = seen.judged_class.sum(axis=1) >= metric.min_samples
    mean = (1 + metric.tolerated) / 2
    lost = evidence.evidence_above(PAIR_VALUES, seen.judged_class, mean) - math.log(1)
    return np.asarray(enough & (lost >= need))
