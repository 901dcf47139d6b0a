"""
Accuracy over a whole rollout, for many rollouts at once: pairs, and the arms of each step.

As `measures._accuracy` does it: the wealth is carried from game to game, and half of it is put
aside before each but the first.
"""

import math

import numpy as np

from gateway.rollouts.statistics import evidence
from gateway.rollouts.statistics.metrics import MetricName
from perf.rollout_simulation.bounds import misses, rates_bound, rates_exact, rates_near
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


def shown(seen: Counts, world: World, need: float, *, worse: bool, asked: Array) -> Array:
    """Where accuracy is shown to be worse than tolerated, or not to be; only where it is asked."""
    found = np.zeros(len(seen.seen), dtype=bool)
    rows = np.flatnonzero(asked)
    tolerated = _TOLERATED * (world.feedback if world.complaints else 1)
    pairs = np.zeros(len(rows))
    if not world.complaints:
        values, mean = (PAIR_VALUES, (1 + tolerated) / 2)
        if not worse:
            values, mean = 1 - values, 1 - mean
        pairs = evidence.evidence_above(values, seen.judged[rows], mean)
    margin = tolerated if worse else -tolerated
    for evidence_of in (rates_bound, rates_near, rates_exact):
        arms, requests = seen.arms[rows], seen.seen[rows]
        paired = (seen.mirrored[rows] > 0) & (not world.complaints)
        games = []
        for step in range(seen.seen.shape[1]):
            counts = tuple(arms[:, step, place] for place in (1, 0, 3, 2))
            if world.complaints:
                counts = (counts[0], requests[:, step, 0], counts[2], requests[:, step, 1])
            games.append(evidence_of(counts if worse else misses(counts), margin))
        enough = together(pairs, games, paired) >= need
        rows, pairs = rows[enough], pairs[enough]
        if not len(rows):
            break
    found[rows] = True
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
