"""
Evidence that may be looked at after every request.

A classical test that is repeated every ten seconds finds a difference sooner or later even where
there is none. Here a test is a game instead (testing by betting): a gambler starts with wealth 1
and bets, on every observation, a fraction of it that the null hypothesis is wrong, at odds that are
fair if it is right. Then wealth is a nonnegative supermartingale under the null, and by Ville's
inequality it ever reaches 1/alpha with probability at most alpha, however often and whenever one
looks. The wealth is the evidence (an e-process); 1/wealth is an always-valid p-value.

For a value x in [0, 1] and the null "its mean is at most m", betting the fraction u multiplies the
wealth by 1 - u + u·x/m, whose mean is at most 1 under the null. A fixed u makes the wealth a
function of how often each value was seen, so counts suffice and are merged by addition. Which u is
best depends on the unknown truth, so the starting wealth is spread evenly over a grid of them.

Two unpaired arms share an unknown rate p. For each p three gamblers start with a third each: one
bets that the champion's rate is below p, one that the challenger's is above p + tolerated, one on
both at once. Their common wealth is a supermartingale for the true p, so its least value over all p
is evidence against every p. In p its logarithm is convex, so a golden-section search finds the
least. The same game over the champion's unknown percentile x instead of p compares percentiles.

All functions are exact for any sample size, return natural logarithms and broadcast over leading
axes. They assume that a step's observations are independent and its rates constant; one-arm tests
only need the conditional mean to stay on the null's side.

Sources: Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting" (JRSS-B
2024; the grid of constant bets is their grid-Kelly); Ramdas, Grünwald, Vovk & Shafer,
"Game-theoretic statistics and safe anytime-valid inference" (Statistical Science 2023); Wasserman,
Ramdas & Balakrishnan, "Universal inference" (PNAS 2020; the least over the nuisance); Howard &
Ramdas, "Sequential estimation of quantiles" (Bernoulli 2022; a percentile is a rate of exceedance).
"""

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]

# Smallest and largest share of the wealth that is put on one observation. A bet of u is the best
# one against a mean that is about u·(1 - m) above m, so the grid sees differences from 0.1 points
# on.
FRACTIONS: Floats = np.geomspace(0.001, 0.98, 18)
_LOG_FRACTIONS = math.log(len(FRACTIONS))
_TINY = 1e-12
_GOLDEN = (math.sqrt(5) - 1) / 2
_STEPS = 32
_BERNOULLI = np.array([0.0, 1.0])


def evidence_above(values: npt.ArrayLike, counts: npt.ArrayLike, mean: npt.ArrayLike) -> Floats:
    """
    Evidence that the mean of bounded observations is above `mean`.

    Args:
        values: The values that an observation can take, each in [0, 1]; shape [V].
        counts: How often each was seen; shape [..., V].
        mean: The null says that the mean is at most this; shape [...] or a scalar.

    Returns:
        The logarithm of the wealth; shape [...]. At most log(1/alpha) with probability 1 - alpha
        under the null, over all times together.
    """
    seen = np.asarray(counts, dtype=np.float64)
    null = np.clip(np.asarray(mean, dtype=np.float64), _TINY, 1 - _TINY)[..., None, None]
    gain = np.asarray(values, dtype=np.float64) / null - 1
    growth = np.log1p(FRACTIONS[:, None] * gain)
    one_null = growth.ndim == 2  # then a matrix product does
    log_wealth = seen @ growth.T if one_null else (growth @ seen[..., None])[..., 0]
    peak: Floats = log_wealth.max(axis=-1)
    spread = np.exp(log_wealth - peak[..., None]).sum(axis=-1)
    return np.asarray(peak + np.log(spread) - _LOG_FRACTIONS, dtype=np.float64)


def evidence_below(values: npt.ArrayLike, counts: npt.ArrayLike, mean: npt.ArrayLike) -> Floats:
    """Evidence that the mean is below `mean`: the game of `evidence_above`, seen in a mirror."""
    return evidence_above(1 - np.asarray(values), counts, 1 - np.asarray(mean))


def rate_above(hits: npt.ArrayLike, trials: npt.ArrayLike, rate: npt.ArrayLike) -> Floats:
    """Evidence that hits come more often than `rate`, from `hits` of `trials`; shapes [...]."""
    return evidence_above(_BERNOULLI, _misses_and_hits(hits, trials), rate)


def rate_below(hits: npt.ArrayLike, trials: npt.ArrayLike, rate: npt.ArrayLike) -> Floats:
    """Evidence that hits come less often than `rate`, from `hits` of `trials`; shapes [...]."""
    return evidence_below(_BERNOULLI, _misses_and_hits(hits, trials), rate)


def both_arms(champion: Floats, challenger: Floats) -> Floats:
    """Wealth of three gamblers: on the champion's side, on the challenger's, on both at once."""
    either = np.logaddexp(champion, challenger)
    return np.asarray(np.logaddexp(either, champion + challenger) - math.log(3), dtype=np.float64)


def difference_above(
    champion_hits: npt.ArrayLike,
    champion_trials: npt.ArrayLike,
    challenger_hits: npt.ArrayLike,
    challenger_trials: npt.ArrayLike,
    tolerated: float,
) -> Floats:
    """
    Evidence that the challenger's rate exceeds the champion's by more than `tolerated`.

    Args:
        champion_hits: Hits of the champion among `champion_trials`; shape [...].
        champion_trials: Its observations; shape [...].
        challenger_hits: Hits of the challenger among `challenger_trials`; shape [...].
        challenger_trials: Its observations; shape [...].
        tolerated: Difference of rates that is still tolerated, in (-1, 1).

    Returns:
        Logarithm of the wealth against "challenger ≤ champion + tolerated"; shape [...].
    """
    champion = _misses_and_hits(champion_hits, champion_trials)
    challenger = _misses_and_hits(challenger_hits, challenger_trials)
    shape = np.broadcast_shapes(champion.shape, challenger.shape)[:-1]

    def wealth(rate: Floats) -> Floats:
        return both_arms(
            evidence_below(_BERNOULLI, champion, rate),
            evidence_above(_BERNOULLI, challenger, rate + tolerated),
        )

    low = np.full(shape, max(0.0, -tolerated))
    high = np.full(shape, min(1.0, 1.0 - tolerated))
    return least(wealth, low, high)


def difference_below(
    champion_hits: npt.ArrayLike,
    champion_trials: npt.ArrayLike,
    challenger_hits: npt.ArrayLike,
    challenger_trials: npt.ArrayLike,
    tolerated: float,
) -> Floats:
    """
    Evidence that the challenger's rate exceeds the champion's by less than `tolerated`: it is not
    worse. Arguments and result as for `difference_above`; misses take the place of hits.
    """
    return difference_above(
        np.asarray(champion_trials) - np.asarray(champion_hits),
        champion_trials,
        np.asarray(challenger_trials) - np.asarray(challenger_hits),
        challenger_trials,
        -tolerated,
    )


def percentiles(
    champion: npt.ArrayLike,
    challenger: npt.ArrayLike,
    *,
    percentile: float,
    surely: npt.NDArray[np.intp],
    perhaps: npt.NDArray[np.intp],
) -> tuple[Floats, Floats]:
    """
    Evidence on the challenger's percentile against a limit that grows with the champion's.

    The champion's percentile x is unknown: for each bucket that it may lie in, the gamblers bet on
    how often the champion exceeds x and the challenger exceeds the limit that belongs to x, and the
    least wealth counts. Within a bucket every count is taken from the side that weakens the
    evidence, so the result holds for the exact values although only a histogram is kept, for any
    distribution.

    Args:
        champion: Counts per bucket; shape [..., B]. The first bucket takes everything below, the
            last everything above.
        challenger: The same for the challenger.
        percentile: In (0, 100).
        surely: For each bucket of the champion, the first bucket that lies above the limit of its
            upper edge, 1 to B; shape [B].
        perhaps: For each bucket, the bucket in which the limit of its lower edge lies, 0 to B - 1;
            shape [B].

    Returns:
        Logarithms of the evidence that the challenger's percentile is above, and that it is below,
        the limit; each of shape [...].
    """
    exceeds = 1 - percentile / 100
    champion_from = _at_least(champion)
    challenger_from = _at_least(challenger)
    champion_all = champion_from[..., :1]
    challenger_all = challenger_from[..., :1]
    at = _turns(champion)
    above = both_arms(
        rate_below(champion_from[..., at], champion_all, exceeds),
        rate_above(challenger_from[..., surely[at]], challenger_all, exceeds),
    )
    below = both_arms(
        rate_above(champion_from[..., at + 1], champion_all, exceeds),
        rate_below(challenger_from[..., perhaps[at]], challenger_all, exceeds),
    )
    return above.min(axis=-1), below.min(axis=-1)


def least(wealth: Callable[[Floats], Floats], low: Floats, high: Floats) -> Floats:
    """
    Least value, between `low` and `high`, of a function that falls and then rises (golden section).

    Args:
        wealth: Maps points of shape [...] to values of shape [...].
        low: Left ends; shape [...].
        high: Right ends; shape [...].

    Returns:
        The least values found; shape [...]. After 32 steps the bracket is 2e-7 of its first width.
    """
    left = high - _GOLDEN * (high - low)
    right = low + _GOLDEN * (high - low)
    at_left, at_right = wealth(left), wealth(right)
    for _ in range(_STEPS):
        go_left = at_left < at_right
        high = np.where(go_left, right, high)
        low = np.where(go_left, low, left)
        probe = np.where(go_left, high - _GOLDEN * (high - low), low + _GOLDEN * (high - low))
        at_probe = wealth(probe)
        left, right = np.where(go_left, probe, right), np.where(go_left, left, probe)
        at_left, at_right = (
            np.where(go_left, at_probe, at_right),
            np.where(go_left, at_left, at_probe),
        )
    return np.minimum(at_left, at_right)


def _misses_and_hits(hits: npt.ArrayLike, trials: npt.ArrayLike) -> Floats:
    hit, tried = np.broadcast_arrays(
        np.asarray(hits, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    )
    return np.stack([tried - hit, hit], axis=-1)


def _turns(counts: npt.ArrayLike) -> npt.NDArray[np.intp]:
    """
    Give the buckets where the least can lie. Between two buckets in which something was seen the
    champion's part stays the same and the challenger's only rises or only falls, so that the ends
    of each such stretch suffice.
    """
    dense = np.asarray(counts)
    last = dense.shape[-1] - 1
    seen = np.flatnonzero(dense.any(axis=tuple(range(dense.ndim - 1))))
    return np.unique(np.clip([0, *(seen - 1), *seen, *(seen + 1), last], 0, last))


def _at_least(counts: npt.ArrayLike) -> Floats:
    """How many fell into each bucket or a higher one, and a last 0; [..., B] to [..., B + 1]."""
    dense = np.asarray(counts, dtype=np.float64)
    suffix = np.cumsum(dense[..., ::-1], axis=-1)[..., ::-1]
    return np.concatenate([suffix, np.zeros((*suffix.shape[:-1], 1))], axis=-1)
