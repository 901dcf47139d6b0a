"""
Rollouts with a known truth: how often are they wrong, and how many requests do they take?

Thousands of rollouts run side by side, judged every ten seconds by the functions of
`gateway.rollouts.evidence`; beside them Flagger's plain thresholds in the same worlds. What is
drawn are the counts that arrive between two checks, not single requests, which is the same in
distribution. A cheap upper bound of the evidence (the likelihood ratio at its best bet) decides
which rollouts need the exact evaluation; a bound below the threshold proves that there is no
decision, so the result is exact.

    nice -n 19 python -m perf.rollout_simulation [--runs 2000] [--docs
    docs/versioning-statistics.md]

writes perf/results/rollout_simulation.json and, between the markers, the tables of the document.
"""

import argparse
import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import rel_entr

from gateway.rollouts import evidence
from gateway.rollouts.metrics import DEFAULT_METRICS, Metric, MetricName, Strategy
from gateway.rollouts.observations import (
    LATENCY_BUCKETS,
    LATENCY_BUCKETS_PER_DOUBLING,
    SHORTEST_LATENCY_S,
    Arm,
    Histogram,
    Observations,
    Pairs,
    buckets_in_ratio,
)
from gateway.rollouts.plan import Plan, Stage
from gateway.rollouts.sample_size import requests_to_decide

Array: TypeAlias = npt.NDArray[Any]

CHECK_S = 10
CHECKS_A_DAY = 86_400 // CHECK_S
MEDIAN_S, SPREAD = 0.060, 0.3  # log-normal latency of the champion: p95 98 ms
CHAMPION_ERRORS, CHAMPION_WRONG = 0.002, 0.10
DEFAULTS = {metric.name: metric for metric in DEFAULT_METRICS}
ALPHA = 0.05


@dataclass(frozen=True)
class World:
    """The truth about a challenger; `lost`, `won`: only the champion, only the challenger right."""

    name: str
    errors: float = CHAMPION_ERRORS
    slower: float = 1.0
    lost: float = 0.0
    won: float = 0.0
    disagrees: float = 0.0
    drift: float = 0.02
    requests_per_s: float = 10.0
    feedback: float = 0.10
    incidents: bool = False

    @property
    def wrong(self) -> float:
        """Rate of wrong answers of the challenger."""
        return CHAMPION_WRONG + self.lost - self.won


SAME = World("the same version (A/A)")
EQUAL = World("retrained, equally good", lost=0.03, won=0.03, disagrees=0.07, drift=0.06)
BETTER = World("better: accuracy +3 points", lost=0.02, won=0.05, disagrees=0.08, drift=0.06)
WORSE = World("worse: accuracy -5 points", lost=0.07, won=0.02, disagrees=0.11, drift=0.10)
SLOW = World("slow: latency +50 %", slower=1.5)
FAILING = World("failing: 5 % errors", errors=0.05)
FLIPPED = World("flipped labels", lost=0.88, won=0.08, disagrees=0.97, drift=0.85)
WORLDS = (SAME, EQUAL, BETTER, WORSE, SLOW, FAILING, FLIPPED)
# Exactly as bad as tolerated, in every metric at once: the hardest challenger not to roll back.
EDGE = World(
    "exactly as bad as tolerated",
    errors=CHAMPION_ERRORS + DEFAULTS[MetricName.ERROR_RATE].tolerated,
    slower=1 + DEFAULTS[MetricName.LATENCY].tolerated,
    lost=0.04,
    won=0.04 - DEFAULTS[MetricName.ACCURACY].tolerated,
    disagrees=DEFAULTS[MetricName.AGREEMENT].tolerated,
    drift=DEFAULTS[MetricName.SCORE_DRIFT].tolerated,
)
INCIDENTS = World("the same version, an incident every hour", incidents=True)
QUIET = World("the same version, one request in 20 s", requests_per_s=0.05)

# Only buckets from the champion's p75 on are drawn one by one; all below are one.
_LOW = math.floor(
    LATENCY_BUCKETS_PER_DOUBLING
    * math.log2(MEDIAN_S * math.exp(SPREAD * NormalDist().inv_cdf(0.75)) / SHORTEST_LATENCY_S)
)
_TAIL = 56


def latency_shares(slower: float, first: int = _LOW, buckets: int = _TAIL) -> Array:
    """Probability of each latency bucket from `first` on; the ends take the rest."""
    edges = SHORTEST_LATENCY_S * 2 ** (
        (first + np.arange(1, buckets)) / LATENCY_BUCKETS_PER_DOUBLING
    )
    normal = NormalDist(math.log(MEDIAN_S * slower), SPREAD)
    below = [normal.cdf(math.log(edge)) for edge in edges]
    return np.diff([0.0, *below, 1.0])


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


PAIR_VALUES = np.array(
    [0.0, 0.5, 1.0]
)  # only the challenger right, neither or both, only the champion
DRIFT_VALUES = np.array([0.0, 0.5, 1.0])


def drift_shares(mean: float) -> Array:
    """A spread-out distribution of score distances with this mean."""
    return np.array([1 - 1.5 * mean, mean, 0.5 * mean]) if mean < 0.5 else np.array([0, 0.3, 0.7])


def step_table(plan: Plan) -> list[tuple[Strategy, float]]:
    """Every judged step of a plan, in order."""
    return [(stage.strategy, step) for stage in plan.stages for step in stage.judged_steps]


@dataclass
class Counts:
    """Everything counted in the current step, for many rollouts."""

    n: Array
    n2: Array
    e: Array
    e2: Array
    latency: Array
    latency2: Array
    labelled: Array
    labelled2: Array
    wrong: Array
    wrong2: Array
    pairs: Array
    disagreed: Array
    drift: Array
    judged: Array

    @classmethod
    def none(cls, runs: int) -> "Counts":
        """Nothing seen yet."""
        wide = {"latency": _TAIL, "latency2": _TAIL, "drift": 3, "judged": 3}
        return cls(
            **{
                name: np.zeros((runs, wide[name]) if name in wide else runs)
                for name in cls.__annotations__
            }
        )

    def keep(self, rows: Array) -> "Counts":
        """Only some rollouts."""
        return Counts(**{name: value[rows] for name, value in vars(self).items()})

    def forget(self, rows: Array) -> None:
        """A new step begins for some."""
        for value in vars(self).values():
            value[rows] = 0


class Traffic:
    """Draws what arrives between two checks."""

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        self.world, self.rng = world, rng
        self.shares, self.shares2 = latency_shares(1.0), latency_shares(world.slower)
        self.drift = drift_shares(world.drift)

    def latencies(self, into: Array, answered: Array, shares: Array) -> None:
        """Add a multinomial draw to each row; only what lies in the tail is drawn one by one."""
        high = self.rng.binomial(answered, 1 - shares[0])
        into[:, 0] += answered - high
        ends = np.cumsum(shares[1:]) / (1 - shares[0])
        bucket = 1 + np.searchsorted(ends[:-1], self.rng.random(int(high.sum())), side="right")
        rows = np.repeat(np.arange(len(into)), high)
        into += np.bincount(rows * _TAIL + bucket, minlength=into.size).reshape(into.shape)

    def arrive(self, seen: Counts, weight: Array, shadow: Array, check: int) -> None:
        """Add one interval to the counts."""
        world, rng = self.world, self.rng
        rate = world.requests_per_s * CHECK_S
        requests = (
            np.full(len(weight), int(rate)) if rate >= 1 else rng.binomial(1, rate, len(weight))
        )
        n2 = np.where(shadow, requests, rng.binomial(requests, weight))
        n = np.where(shadow, requests, requests - n2)
        worse = 10.0 if world.incidents and check % 360 < 60 else 1.0  # ten minutes in each hour
        e, e2 = rng.binomial(n, CHAMPION_ERRORS * worse), rng.binomial(n2, world.errors * worse)
        seen.n += n
        seen.n2 += n2
        seen.e += e
        seen.e2 += e2
        self.latencies(seen.latency, n - e, self.shares)
        self.latencies(seen.latency2, n2 - e2, self.shares2)
        labelled, labelled2 = rng.binomial(n, world.feedback), rng.binomial(n2, world.feedback)
        apart = ~shadow
        seen.labelled += labelled * apart
        seen.labelled2 += labelled2 * apart
        seen.wrong += rng.binomial(labelled * apart, CHAMPION_WRONG)
        seen.wrong2 += rng.binomial(labelled2 * apart, world.wrong)
        if shadow.any():
            pairs = requests * shadow
            seen.pairs += pairs
            seen.disagreed += rng.binomial(pairs, world.disagrees)
            seen.drift += rng.multinomial(pairs, self.drift)
            outcome = (world.won, 1 - world.won - world.lost, world.lost)
            seen.judged += rng.multinomial(labelled * shadow, outcome)


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


def simulate(
    world: World,
    plan: Plan,
    *,
    runs: int,
    seed: int,
    checks: int = CHECKS_A_DAY,
    held: bool = False,
) -> dict[str, Any]:
    """
    Run many rollouts of one plan.

    Args:
        world: The truth.
        plan: Stages; default metrics.
        runs: How many.
        seed: Of the random numbers.
        checks: When to give up.
        held: Never leave the first step (a human holds it): every check is a chance to fail.

    Returns:
        Shares of outcomes; requests and seconds until them, share of requests that the challenger
        answered.
    """
    rng = np.random.Generator(np.random.SFC64(seed))
    traffic, metrics = Traffic(world, rng), Metrics(world)
    steps = step_table(plan)
    weights = np.array([0 if s is Strategy.SHADOW else step / 100 for s, step in steps])
    shadows = np.array([s is Strategy.SHADOW for s, _ in steps])
    tests = np.array([s is Strategy.AB for s, _ in steps])
    fail_at = math.log(plan.comparisons / ALPHA)
    per_check = world.requests_per_s * CHECK_S

    seen, step = Counts.none(runs), np.zeros(runs, dtype=int)
    exposed = np.zeros(runs)
    done: dict[str, list[tuple[float, float]]] = {"rolled back": [], "promoted": []}
    for check in range(1, checks + 1):
        before = seen.n2.copy()
        traffic.arrive(seen, weights[step], shadows[step], check)
        exposed += np.where(shadows[step], 0, seen.n2 - before)
        failed = worse_than_tolerated(metrics, seen, fail_at)
        passed = np.zeros(len(step), dtype=bool)
        if not held:
            passed = ~failed & shown_not_worse(
                metrics, seen, shadows[step], tests[step], plan.min_samples
            )
        promoted = passed & (step + 1 == len(steps))
        for name, which in (("rolled back", failed), ("promoted", promoted)):
            done[name] += [(check * per_check, float(share)) for share in exposed[which]]
        step = np.where(passed & ~promoted, step + 1, step)
        seen.forget(np.flatnonzero(passed))
        stay = ~(failed | promoted)
        if not stay.all():
            seen, step, exposed = seen.keep(stay), step[stay], exposed[stay]
        if not len(step):
            break
    return {
        "world": world.name,
        "strategy": " → ".join(stage.strategy for stage in plan.stages),
        "runs": runs,
        "seed": seed,
        "held": held,
        "undecided": len(step) / runs,
        **{name: _summary(entries, runs, world) for name, entries in done.items()},
    }


def _summary(entries: list[tuple[float, float]], runs: int, world: World) -> dict[str, float]:
    if not entries:
        return {"share": 0.0}
    requests, exposed = np.array(entries).T
    return {
        "share": len(entries) / runs,
        "requests_median": float(np.median(requests)),
        "requests_p95": float(np.quantile(requests, 0.95)),
        "seconds_median": float(np.median(requests) / world.requests_per_s),
        "exposed_requests_median": float(np.median(exposed)),
        "exposed_share_median": float(np.median(exposed / requests)),
    }


def flagger(
    world: World, *, runs: int, seed: int, relative: bool, threshold: int, held: bool
) -> dict[str, Any]:
    """
    Flagger's thresholds on the same traffic: checks of the last minute's success rate (at least 99
    %) and p99 (at most 500 ms), or, `relative`, at most one point and 20 % worse than the champion
    in the same minute; weights 1, 5, 25, 50, one interval each; no data is a failed check. `held`
    stays at 50 % for a day.
    """
    rng = np.random.default_rng(seed)
    weights = [0.5] * 1440 if held else [0.01, 0.05, 0.25, 0.5]
    failures = np.zeros(runs, dtype=int)
    at = np.zeros(runs, dtype=int)
    rolled_back = np.zeros(runs, dtype=bool)
    promoted = np.zeros(runs, dtype=bool)
    normal, answered = NormalDist(), np.zeros(runs)
    quantile = np.vectorize(normal.inv_cdf)
    for check in range(1, 2881):
        live = np.flatnonzero(~(rolled_back | promoted))
        if not len(live):
            break
        weight = np.array(weights)[at[live]]
        requests = rng.binomial(600, min(1.0, world.requests_per_s / 10), len(live))
        n2 = rng.binomial(requests, weight)
        n = requests - n2
        worse = 10.0 if world.incidents and check % 60 < 10 else 1.0
        ok = 1 - rng.binomial(n, CHAMPION_ERRORS * worse) / np.maximum(n, 1)
        ok2 = 1 - rng.binomial(n2, world.errors * worse) / np.maximum(n2, 1)
        rank, rank2 = (np.maximum(np.ceil(0.99 * count), 1) for count in (n, n2))
        beta = rng.beta(rank, np.maximum(n, 1) - rank + 1)
        beta2 = rng.beta(rank2, np.maximum(n2, 1) - rank2 + 1)
        p99 = MEDIAN_S * np.exp(SPREAD * quantile(np.clip(beta, 1e-9, 1 - 1e-9)))
        p99_2 = MEDIAN_S * world.slower * np.exp(SPREAD * quantile(np.clip(beta2, 1e-9, 1 - 1e-9)))
        beside = (ok2 < ok - 0.01) | (p99_2 > 1.2 * p99)
        bad = beside if relative else (ok2 < 0.99) | (p99_2 > 0.5)
        bad |= n2 == 0
        failures[live] += bad
        rolled_back[live] = failures[live] >= threshold
        answered[live] = check
        moved = live[~bad]
        at[moved] += 1
        promoted |= (at >= len(weights)) & ~rolled_back
        at = np.minimum(at, len(weights) - 1)
    per_minute = world.requests_per_s * 60
    return {
        "world": world.name,
        "variant": "relative" if relative else "absolute",
        "threshold": threshold,
        "held": held,
        "runs": runs,
        "rolled back": float(rolled_back.mean()),
        "promoted": float(promoted.mean()),
        "requests_median": float(np.median(answered) * per_minute),
    }


def expected_per_request(world: World, strategy: Strategy, weight: float) -> Observations:
    """What one request of the whole traffic adds on average."""
    pairs = Pairs()
    share, share2 = 1 - weight, weight
    if strategy is Strategy.SHADOW:
        share = share2 = 1.0
        labelled = world.feedback
        pairs = Pairs(
            1.0, world.disagrees, Histogram(), labelled, labelled * world.lost, labelled * world.won
        )

    def arm(of: float, errors: float, slower: float, wrong: float) -> Arm:
        shares = latency_shares(slower, 0, LATENCY_BUCKETS)
        spread = {i: of * (1 - errors) * float(p) for i, p in enumerate(shares) if p > 1e-9}
        labelled = of * world.feedback
        return Arm(of, of * errors, Histogram(spread), labelled, labelled * wrong)

    return Observations(
        arm(share, CHAMPION_ERRORS, 1.0, CHAMPION_WRONG),
        arm(share2, world.errors, world.slower, world.wrong),
        pairs,
    )


CASES = (
    (SAME, MetricName.ERROR_RATE, "0.2 % errors on both sides"),
    (World("", errors=0.02), MetricName.ERROR_RATE, "2 % errors instead of 0.2 %"),
    (FAILING, MetricName.ERROR_RATE, "5 % errors instead of 0.2 %"),
    (SAME, MetricName.LATENCY, "equal latency"),
    (World("", slower=1.3), MetricName.LATENCY, "latency +30 %"),
    (SLOW, MetricName.LATENCY, "latency +50 %"),
    (EQUAL, MetricName.AGREEMENT, "7 % of the answers differ"),
    (FLIPPED, MetricName.AGREEMENT, "97 % of the answers differ"),
    (SAME, MetricName.ACCURACY, "the same answers, all labelled"),
    (EQUAL, MetricName.ACCURACY, "equal accuracy, all labelled"),
    (BETTER, MetricName.ACCURACY, "accuracy +3 points, all labelled"),
    (WORSE, MetricName.ACCURACY, "accuracy -5 points, all labelled"),
)
COLUMNS = (
    (Strategy.SHADOW, 1.0),
    (Strategy.CANARY, 0.01),
    (Strategy.CANARY, 0.05),
    (Strategy.AB, 0.5),
)


def sample_sizes() -> list[dict[str, Any]]:
    """Requests of the whole traffic until one metric is expected to decide."""
    comparisons = PLANS["chain"].comparisons
    rows = []
    for world, name, text in CASES:
        labelled = replace(world, feedback=1.0)
        row: dict[str, Any] = {"metric": name, "truth": text}
        for strategy, weight in COLUMNS:
            metric: Metric = DEFAULTS[name]
            if not metric.applies_to(strategy):
                continue
            size = requests_to_decide(
                metric, expected_per_request(labelled, strategy, weight), comparisons=comparisons
            )
            row["outcome"] = size.outcome
            row[f"{strategy} {weight * 100:g} %"] = size.requests
        rows.append(row)
    return rows


PLANS = {
    "chain": Plan(stages=(Stage.of("shadow"), Stage.of("canary"))),
    "canary": Plan(stages=(Stage.of("canary"),)),
    "ab": Plan(stages=(Stage.of("ab"),)),
    "half": Plan(stages=(Stage.of("canary", [50]),)),
}
HELD = (("half", SAME), ("half", INCIDENTS), ("chain", EDGE), ("half", EDGE))
FLAGGER_WORLDS = (SAME, INCIDENTS, QUIET, BETTER, WORSE, SLOW, FAILING, FLIPPED)


def run(runs: int) -> dict[str, Any]:
    """Every table."""
    started = time.process_time()
    rollouts = [
        simulate(world, PLANS["chain"], runs=runs, seed=10 + i) for i, world in enumerate(WORLDS)
    ]
    bad = (WORSE, SLOW, FAILING, FLIPPED)
    rollouts += [
        simulate(world, PLANS["canary"], runs=runs, seed=30 + i) for i, world in enumerate(bad)
    ]
    tested = (EQUAL, BETTER, WORSE)
    rollouts += [
        simulate(world, PLANS["ab"], runs=runs, seed=40 + i) for i, world in enumerate(tested)
    ]
    rollouts.append(simulate(QUIET, PLANS["canary"], runs=runs, seed=50))
    held = [
        simulate(replace(world, requests_per_s=2.0), PLANS[plan], runs=runs, seed=60 + i, held=True)
        for i, (plan, world) in enumerate(HELD)
    ]
    plain = [
        flagger(world, runs=runs, seed=80, relative=relative, threshold=threshold, held=False)
        for world in FLAGGER_WORLDS
        for relative in (False, True)
        for threshold in (1, 5)
    ]
    plain += [
        flagger(world, runs=runs, seed=90, relative=relative, threshold=5, held=True)
        for world in (SAME, INCIDENTS)
        for relative in (False, True)
    ]
    return {
        "runs": runs,
        "cpu_seconds": round(time.process_time() - started, 1),
        "sample_sizes": sample_sizes(),
        "rollouts": rollouts,
        "held_for_a_day": held,
        "flagger": plain,
    }


def percent(share: float) -> str:
    """A share for people."""
    return f"{share * 100:.1f} %"


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Markdown tables by the name of their marker."""
    columns = [f"{strategy} {weight * 100:g} %" for strategy, weight in COLUMNS]
    sizes = [
        "| truth | metric | decision | " + " | ".join(columns) + " |",
        "|---|---|---|" + "--:|" * 4,
    ]
    for row in result["sample_sizes"]:
        cells = [f"{row[column]:,}" if column in row else "–" for column in columns]
        sizes.append(
            f"| {row['truth']} | {row['metric']} | {row['outcome']} | {' | '.join(cells)} |"
        )
    head = (
        "| challenger | strategy | promoted | rolled back | open after a day "
        "| requests until then, median (p95) | of them answered by the challenger |"
    )
    rollouts = [head, "|---|---|--:|--:|--:|--:|--:|"]
    for row in result["rollouts"]:
        name = (
            "rolled back" if row["rolled back"]["share"] > row["promoted"]["share"] else "promoted"
        )
        end = row[name]
        until = (
            f"{end['requests_median']:,.0f} ({end['requests_p95']:,.0f})" if end["share"] else "–"
        )
        exposed = f"{end['exposed_requests_median']:,.0f}" if end["share"] else "–"
        shares = (row["promoted"]["share"], row["rolled back"]["share"], row["undecided"])
        cells = [row["world"], row["strategy"], *map(percent, shares), until, exposed]
        rollouts.append(f"| {' | '.join(cells)} |")
    held = ["| challenger | held in | checks | rolled back |", "|---|---|--:|--:|"]
    for row in result["held_for_a_day"]:
        place = "shadow 100 %" if "shadow" in row["strategy"] else "canary 50 %"
        held.append(
            f"| {row['world']} | {place} | 8,640 | {row['rolled back']['share'] * 100:.2f} % |"
        )
    plain = [
        "| challenger | thresholds | failed checks allowed | promoted | rolled back |",
        "|---|---|--:|--:|--:|",
    ]
    for row in result["flagger"]:
        world = row["world"] + (", 1,440 iterations at 50 %" if row["held"] else "")
        plain.append(
            f"| {world} | {row['variant']} | {row['threshold'] - 1} | {percent(row['promoted'])} | "
            f"{percent(row['rolled back'])} |"
        )
    named = {"sample-sizes": sizes, "rollouts": rollouts, "held": held, "flagger": plain}
    return {name: "\n".join(lines) for name, lines in named.items()}


def write_into(document: Path, parts: dict[str, str]) -> None:
    """Replace what stands between `<!-- NAME -->` and `<!-- /NAME -->`."""
    text = document.read_text(encoding="utf-8")
    for name, table in parts.items():
        head, _, rest = text.partition(f"<!-- {name} -->")
        _, found, tail = rest.partition(f"<!-- /{name} -->")
        if not found:
            raise SystemExit(f"{document} has no markers for {name}.")
        text = f"{head}<!-- {name} -->\n{table}\n{found}{tail}"
    document.write_text(text, encoding="utf-8")


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--docs", type=Path)
    parser.add_argument(
        "--json", type=Path, default=Path(__file__).parent / "results" / "rollout_simulation.json"
    )
    arguments = parser.parse_args()
    result = run(arguments.runs)
    parts = tables(result)
    print("\n\n".join(parts.values()), f"\n\n{result['cpu_seconds']} s of CPU")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if arguments.docs:
        write_into(arguments.docs, parts)


if __name__ == "__main__":
    main()
