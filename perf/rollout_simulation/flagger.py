"""Flagger's plain thresholds in the same worlds."""

from statistics import NormalDist
from typing import Any

import numpy as np

from perf.rollout_simulation.worlds import CHAMPION_ERRORS, MEDIAN_S, SPREAD, World


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
