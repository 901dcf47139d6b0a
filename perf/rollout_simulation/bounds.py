"""
The exact evidence of every metric for many rollouts at once, behind cheap upper bounds.

A bound (the likelihood ratio at its best bet) below the threshold proves that there is no decision;
only what is above it is evaluated, so the result is exact.
"""

import numpy as np
from scipy.special import rel_entr

from gateway.rollouts.statistics import evidence
from gateway.rollouts.statistics.latency_limits import latency_limits
from gateway.rollouts.statistics.metrics import MetricName
from perf.rollout_simulation.worlds import DEFAULTS, LOW, TAIL, Array, latency_shares

_BETWEEN = (0.0, 0.5, 0.25, 0.75)
_NEAR = np.array([-60, -30, -15, 0, 15, 30])


def divergence(hits: Array, trials: Array, rate: Array | float) -> Array:
    """Logarithm of the likelihood ratio of the observed rate against `rate`: no bet wins more."""
    return np.asarray(
        rel_entr(hits, trials * rate) + rel_entr(trials - hits, trials * (1 - np.asarray(rate)))
    )


def rates_bound(counts: tuple[Array, ...], tolerated: float) -> Array:
    """At least the evidence that the challenger's rate exceeds the champion's by that much."""
    hits, trials, hits_2, trials_2 = counts
    low, high = max(0.0, -tolerated), min(1.0, 1.0 - tolerated)
    first = hits / np.maximum(trials, 1e-9)
    gap = hits_2 / np.maximum(trials_2, 1e-9) - tolerated - first
    least = np.full(len(hits), np.inf)
    for between in _BETWEEN:
        at = np.clip(first + between * gap, low, high)
        own = np.where(first > at, 0, divergence(hits, trials, at))
        other = np.where(
            hits_2 < (at + tolerated) * trials_2, 0, divergence(hits_2, trials_2, at + tolerated)
        )
        least = np.minimum(least, evidence.both_arms(own, other))
    return np.where((gap > 0) & (trials > 0) & (trials_2 > 0), least, 0.0)


def rates_near(counts: tuple[Array, ...], tolerated: float) -> Array:
    """The evidence against one rate of the champion, a likely one: at least the evidence itself."""
    hits, trials, hits_2, trials_2 = counts
    first = hits / np.maximum(trials, 1e-9)
    gap = hits_2 / np.maximum(trials_2, 1e-9) - tolerated - first
    share = trials_2 / np.maximum(trials + trials_2, 1e-9)
    at = np.clip(first + share * gap, max(0.0, -tolerated), min(1.0, 1.0 - tolerated))
    found = evidence.both_arms(
        evidence.rate_below(hits, trials, at), evidence.rate_above(hits_2, trials_2, at + tolerated)
    )
    return np.where((trials > 0) & (trials_2 > 0), found, 0.0)


def rates_exact(counts: tuple[Array, ...], tolerated: float) -> Array:
    """The evidence itself; 0 where one side has no data."""
    hits, trials, hits_2, trials_2 = counts
    exact = evidence.difference_above(hits, trials, hits_2, trials_2, tolerated)
    return np.where((counts[1] > 0) & (counts[3] > 0), exact, 0.0)


def misses(counts: tuple[Array, ...]) -> tuple[Array, ...]:
    """The same counts, with misses in place of hits: for the other question."""
    hits, trials, hits_2, trials_2 = counts
    return trials - hits, trials, trials_2 - hits_2, trials_2


class Metrics:
    """The exact evidence of every metric for many rollouts at once, behind cheap upper bounds."""

    def __init__(self) -> None:
        surely, perhaps = latency_limits(DEFAULTS[MetricName.LATENCY])
        here = slice(LOW, LOW + TAIL)
        # The first bucket takes everything below the tail, the last everything above it.
        self.surely = np.clip(surely[here] - LOW, 1, TAIL)
        self.perhaps = np.clip(perhaps[here] - LOW, 0, TAIL - 1)
        exceeds = np.cumsum(latency_shares(1.0)[::-1])[::-1]
        self.at = int(np.searchsorted(-exceeds, -0.05)) - 1  # bucket of the champion's true p95

    def rates(self, counts: tuple[Array, ...], tolerated: float, need: float) -> Array:
        """Where the challenger's rate is shown to exceed the champion's by more than tolerated."""
        found = rates_bound(counts, tolerated) >= need
        for evidence_of in (rates_near, rates_exact):
            rows = np.flatnonzero(found)
            if len(rows):
                found[rows] = evidence_of(tuple(c[rows] for c in counts), tolerated) >= need
        return found

    def not_worse(self, counts: tuple[Array, ...], tolerated: float, need: float) -> Array:
        """Where the challenger's rate is shown not to exceed it by that much."""
        return self.rates(misses(counts), -tolerated, need)

    def latency(self, champion: Array, challenger: Array, need: float, *, worse: bool) -> Array:
        """Where the challenger's p95 is shown to be worse than tolerated, or not to be."""
        found = np.zeros(len(champion), dtype=bool)
        of, of_2 = champion.sum(axis=1), challenger.sum(axis=1)
        first = self.at if worse else self.at + 1
        second = (self.surely if worse else self.perhaps)[self.at]
        hits = champion[:, first:].sum(axis=1)
        hits_2 = challenger[:, second:].sum(axis=1)
        sign = 1 if worse else -1
        own = np.where(sign * (0.05 * of - hits) > 0, divergence(hits, of, 0.05), 0)
        other = np.where(sign * (hits_2 - 0.05 * of_2) > 0, divergence(hits_2, of_2, 0.05), 0)
        rows = np.flatnonzero(evidence.both_arms(own, other) >= need)
        if len(rows):
            near = self._latency_near(champion[rows], challenger[rows], worse=worse)
            rows = rows[near >= need]
        if len(rows):
            exact = evidence.percentiles(
                champion[rows],
                challenger[rows],
                percentile=95,
                surely=self.surely,
                perhaps=self.perhaps,
            )[0 if worse else 1]
            found[rows[exact >= need]] = True
        return found

    def _latency_near(self, champion: Array, challenger: Array, *, worse: bool) -> Array:
        """The least evidence over some percentiles that the champion may have: an upper bound."""
        at = self.at + _NEAR
        limits = (self.surely if worse else self.perhaps)[at]
        above, above_2 = (
            np.cumsum(counts[:, ::-1], axis=1)[:, ::-1] for counts in (champion, challenger)
        )
        own, other = above[:, at if worse else at + 1], above_2[:, limits]
        trials, trials_2 = above[:, :1], above_2[:, :1]
        low, high = (
            (evidence.rate_below, evidence.rate_above)
            if worse
            else (evidence.rate_above, evidence.rate_below)
        )
        found = evidence.both_arms(low(own, trials, 0.05), high(other, trials_2, 0.05))
        return np.asarray(found.min(axis=1))

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
