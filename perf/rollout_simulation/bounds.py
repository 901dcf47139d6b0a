"""
The exact evidence of every metric for many rollouts at once, behind cheap upper bounds.

A bound (the likelihood ratio at its best bet) below the threshold proves that there is no decision;
only what is above it is evaluated, so the result is exact.
"""

import math

import numpy as np
from scipy.special import rel_entr

from gateway.rollouts.statistics import evidence
from gateway.rollouts.statistics.metrics import MetricName
from gateway.rollouts.statistics.observations import buckets_in_ratio
from perf.rollout_simulation.worlds import DEFAULTS, Array, World, drift_shares, latency_shares


def divergence(hits: Array, trials: Array, rate: Array | float) -> Array:
    """Logarithm of the likelihood ratio of the observed rate against `rate`: no bet wins more."""
    return np.asarray(
        rel_entr(hits, trials * rate) + rel_entr(trials - hits, trials * (1 - np.asarray(rate)))
    )


class Metrics:
    """The exact evidence of every metric for many rollouts at once, behind cheap upper bounds."""

    def __init__(self, world: World) -> None:
        self.shift = buckets_in_ratio(1 + DEFAULTS[MetricName.LATENCY].tolerated)
        exceeds = np.cumsum(latency_shares(1.0)[::-1])[::-1]
        self.at = int(np.searchsorted(-exceeds, -0.05)) - 1  # bucket of the champion's true p95
        self.drift = drift_shares(world.drift)

    def rates(self, counts: tuple[Array, ...], tolerated: float, need: float) -> Array:
        """Where the challenger's rate is shown to exceed the champion's by more than tolerated."""
        hits, trials, hits_2, trials_2 = counts
        found = np.zeros(len(hits), dtype=bool)
        low, high = max(0.0, -tolerated), min(1.0, 1.0 - tolerated)
        first = hits / np.maximum(trials, 1)
        gap = hits_2 / np.maximum(trials_2, 1) - tolerated - first
        rows = np.flatnonzero(gap > 0)
        # The least lies about between the two observed rates, and at any rate the wealth bounds it:
        # first the best bets that hindsight knows, then the gamblers' own.
        for between in (0.0, 0.5, 0.25, 0.75):
            if not len(rows):
                return found
            at = np.clip(first[rows] + between * gap[rows], low, high)
            own = np.where(between > 0, divergence(hits[rows], trials[rows], at), 0)
            other = divergence(hits_2[rows], trials_2[rows], at + tolerated)
            rows = rows[evidence.both_arms(own, other) >= need]
        for between in (0.5, 0.0, 0.25, 0.1, 0.75):
            if not len(rows):
                return found
            at = np.clip(first[rows] + between * gap[rows], low, high)
            bound = evidence.both_arms(
                evidence.rate_below(hits[rows], trials[rows], at),
                evidence.rate_above(hits_2[rows], trials_2[rows], at + tolerated),
            )
            rows = rows[bound >= need]
        if len(rows):
            exact = evidence.difference_above(
                hits[rows], trials[rows], hits_2[rows], trials_2[rows], tolerated
            )
            found[rows[exact >= need]] = True
        return found

    def not_worse(self, counts: tuple[Array, ...], tolerated: float, need: float) -> Array:
        """Where the challenger's rate is shown not to exceed it by that much."""
        hits, trials, hits_2, trials_2 = counts
        return self.rates((trials - hits, trials, trials_2 - hits_2, trials_2), -tolerated, need)

    def latency(self, champion: Array, challenger: Array, need: float, *, worse: bool) -> Array:
        """Where the challenger's p95 is shown to be worse than tolerated, or not to be."""
        found = np.zeros(len(champion), dtype=bool)
        of, of_2 = champion.sum(axis=1), challenger.sum(axis=1)
        first, second = (self.at, self.at + 1 + math.ceil(self.shift))
        if not worse:
            first, second = (self.at + 1, self.at + math.floor(self.shift))
        hits = champion[:, first:].sum(axis=1)
        hits_2 = challenger[:, second:].sum(axis=1)
        sign = 1 if worse else -1
        own = np.where(sign * (0.05 * of - hits) > 0, divergence(hits, of, 0.05), 0)
        other = np.where(sign * (hits_2 - 0.05 * of_2) > 0, divergence(hits_2, of_2, 0.05), 0)
        rows = np.flatnonzero(evidence.both_arms(own, other) >= need)
        if len(rows):
            exact = evidence.percentile_ratio(
                champion[rows], challenger[rows], percentile=95, ratio_in_buckets=self.shift
            )[0 if worse else 1]
            found[rows[exact >= need]] = True
        return found

    def one_arm(self, hits: Array, trials: Array, rate: float, need: float) -> Array:
        """Where the rate is shown to be above `rate`."""
        found = np.zeros(len(hits), dtype=bool)
        bound = np.where(hits > rate * trials, divergence(hits, trials, rate), 0)
        rows = np.flatnonzero(bound >= need)
        if len(rows):
            found[rows[evidence.rate_above(hits[rows], trials[rows], rate) >= need]] = True
        return found

    def means(self, values: Array, counts: Array, mean: float, need: float) -> Array:
        """Where the mean of values in [0, 1] is shown to be above `mean`."""
        found = np.zeros(len(counts), dtype=bool)
        rows = np.flatnonzero(counts @ values > mean * counts.sum(axis=1))
        if len(rows):
            found[rows[evidence.evidence_above(values, counts[rows], mean) >= need]] = True
        return found
