import math
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize_scalar

from gateway.rollouts.statistics import evidence


def test_expected_wealth_is_one_at_the_edge_of_the_null() -> None:
    """Under the null's edge the expected wealth after n observations is exactly 1: a fair game."""
    trials, rate = 40, 0.07
    hits = np.arange(trials + 1)
    probability = stats.binom.pmf(hits, trials, rate)
    for game in (evidence.rate_above, evidence.rate_below):
        wealth = np.exp(game(hits, np.full(trials + 1, trials), rate))
        assert probability @ wealth == pytest.approx(1)


@pytest.mark.parametrize(("champion", "tolerated"), [(0.02, 0.01), (0.3, 0.05), (0.1, 0.0)])
def test_expected_wealth_of_two_arms_is_at_most_one(champion: float, tolerated: float) -> None:
    """The expected wealth of the two-arm game stays at most 1 under the null."""
    first, second = 30, 20
    hits, hits_2 = np.meshgrid(np.arange(first + 1), np.arange(second + 1), indexing="ij")
    wealth = np.exp(evidence.difference_above(hits, first, hits_2, second, tolerated))
    weights = np.outer(
        stats.binom.pmf(np.arange(first + 1), first, champion),
        stats.binom.pmf(np.arange(second + 1), second, champion + tolerated),
    )
    assert float((weights * wealth).sum()) <= 1 + 1e-9


def test_mixture_never_beats_the_best_bet() -> None:
    """The likelihood ratio at the observed rate bounds the mixture from above."""
    hits, trials, rate = 30.0, 400.0, 0.05
    seen = hits / trials
    best = hits * math.log(seen / rate) + (trials - hits) * math.log((1 - seen) / (1 - rate))
    wealth = float(evidence.rate_above(hits, trials, rate))
    assert best - 4 < wealth < best


def test_golden_section_finds_the_least_wealth() -> None:
    """The least over the nuisance rate agrees with scipy's bounded minimiser."""
    counts = (60, 6000, 12, 150)
    tolerated = 0.01

    def wealth(rate: float) -> float:
        return float(
            evidence.both_arms(
                evidence.rate_below(counts[0], counts[1], rate),
                evidence.rate_above(counts[2], counts[3], rate + tolerated),
            )
        )

    best = minimize_scalar(wealth, bounds=(0, 0.99), method="bounded", options={"xatol": 1e-12})
    found = float(evidence.difference_above(*counts, tolerated))
    assert found == pytest.approx(best.fun, abs=1e-6)


def test_difference_is_mirrored_by_swapping_hits_and_misses() -> None:
    """Shown to be worse in errors is the same as shown to be worse in successes."""
    above = evidence.difference_above(5, 500, 40, 500, 0.01)
    below = evidence.difference_below(495, 500, 460, 500, -0.01)
    assert float(above) == pytest.approx(float(below))
    assert float(above) > 5


def test_functions_broadcast_like_one_by_one() -> None:
    """Many rollouts at once give the numbers of each alone."""
    hits = np.array([1.0, 5.0, 30.0])
    together = evidence.difference_above(2.0, 300.0, hits, 200.0, 0.01)
    alone = [float(evidence.difference_above(2.0, 300.0, hit, 200.0, 0.01)) for hit in hits]
    assert together == pytest.approx(alone)


def test_looking_after_every_request_keeps_the_error_bound() -> None:
    """At the null's edge, looked at after each of 5,000 requests, the bound of 5 % holds."""
    rng = np.random.default_rng(7)
    runs, requests, rate = 1000, 5000, 0.05
    hits = np.cumsum(rng.random((runs, requests)) < rate, axis=1)
    looks = np.unique(np.geomspace(1, requests, 400).astype(int))
    wealth = evidence.rate_above(hits[:, looks - 1], looks, rate)
    naive = stats.binom.sf(hits[:, looks - 1] - 1, looks, rate)
    false = np.mean(wealth.max(axis=1) >= math.log(1 / 0.05))
    assert 0 < false <= 0.05
    assert np.mean(naive.min(axis=1) <= 0.05) > 0.2  # what repeated classical tests would do


def _limits(buckets: int, shift: float) -> dict[str, Any]:
    """The limits of a ratio of `shift` logarithmic buckets."""
    here = np.arange(buckets)
    return {
        "surely": np.clip(here + 1 + math.ceil(shift), 1, buckets),
        "perhaps": np.clip(here + math.floor(shift), 0, buckets - 1),
    }


def test_percentiles_tells_slower_from_equal() -> None:
    """A percentile 50 % higher is found, an equal one is shown to be within 20 %."""
    shares = np.diff(stats.norm.cdf(np.log(2 ** (np.arange(-320, 321) / 32)) / 0.3))
    equal = 1000 * shares
    slower = np.roll(equal, round(32 * math.log2(1.5)))
    shift = 32 * math.log2(1.2)
    worse, not_worse = evidence.percentiles(
        equal, np.stack([slower, equal]), percentile=95, **_limits(640, shift)
    )
    assert worse[0] > math.log(1000) > 0 > worse[1]
    assert not_worse[1] > math.log(20) > 0 > not_worse[0]


@pytest.mark.slow
def test_percentiles_at_the_edge_keeps_the_error_bound() -> None:
    """A challenger exactly at the tolerated ratio is seldom called worse, or better."""
    rng = np.random.default_rng(11)
    runs, looks, per_look = 300, 60, 50
    edges = 2 ** (np.arange(161) / 32)
    draw = rng.lognormal(1.0, 0.4, (2, runs, looks * per_look))
    draw[1] *= 1.25
    places = np.clip(np.searchsorted(edges, draw) - 1, 0, 159)
    least = 0
    for run in range(runs):
        one_hot = np.zeros((2, looks, 160))
        for arm in range(2):
            at = np.repeat(np.arange(looks), per_look)
            np.add.at(one_hot[arm], (at, places[arm, run]), 1)
        champion, challenger = np.cumsum(one_hot, axis=1)
        above, below = evidence.percentiles(
            champion, challenger, percentile=90, **_limits(160, 32 * math.log2(1.25))
        )
        least += max(above.max(), below.max()) >= math.log(20)
    assert least / runs <= 0.1  # two questions at 5 % each
