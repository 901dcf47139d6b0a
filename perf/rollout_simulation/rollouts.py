"""Many rollouts of one plan in one world, side by side."""

import math
from typing import Any

import numpy as np

from gateway.rollouts.state.plan import Plan, Stage
from gateway.rollouts.statistics.metrics import Strategy
from perf.rollout_simulation.bounds import Metrics
from perf.rollout_simulation.judging import Steps, shown_not_worse, worse_than_tolerated
from perf.rollout_simulation.traffic import Counts, Traffic
from perf.rollout_simulation.worlds import ALPHA, World

PLANS = {
    "chain": Plan(stages=(Stage.of("shadow"), Stage.of("canary"))),
    "canary": Plan(stages=(Stage.of("canary"),)),
    "ab": Plan(stages=(Stage.of("ab"),)),
    "half": Plan(stages=(Stage.of("canary", [50]),)),
}


def step_table(plan: Plan) -> list[tuple[Strategy, float]]:
    """Every judged step of a plan, in order."""
    return [(stage.strategy, step) for stage in plan.stages for step in stage.judged_steps]


def looks(checks: int) -> list[int]:
    """
    The checks that are simulated: every one at first, then one whenever 1 % more time has passed.
    Evidence hardly changes in between, and the bounds hold for any choice of looks.
    """
    found = [1]
    while found[-1] < checks:
        found.append(min(checks, max(found[-1] + 1, math.floor(found[-1] * 1.01))))
    return found


def simulate(
    world: World,
    plan: Plan,
    *,
    runs: int,
    seed: int,
    checks: int | None = None,
    held: bool = False,
) -> dict[str, Any]:
    """
    Run many rollouts of one plan.

    Args:
        world: The truth.
        plan: Stages; default metrics.
        runs: How many.
        seed: Of the random numbers.
        checks: When to give up; None: when the world says so.
        held: Never leave the first step (a human holds it): every check is a chance to fail.

    Returns:
        Shares of outcomes; requests and seconds until them, share of requests that the challenger
        answered.
    """
    rng = np.random.Generator(np.random.SFC64(seed))
    traffic, metrics = Traffic(world, rng), Metrics()
    steps = step_table(plan)
    weights = np.array([0 if s is Strategy.SHADOW else step / 100 for s, step in steps])
    shadows = np.array([s is Strategy.SHADOW for s, _ in steps])
    tests = np.array([s is Strategy.AB for s, _ in steps])
    fail_at = math.log(plan.comparisons / ALPHA)
    per_check = world.requests_per_s * world.check_s

    seen, step = Counts.none(runs, len(steps)), np.zeros(runs, dtype=int)
    exposed, waits = np.zeros(runs), np.zeros(runs, dtype=bool)
    done: dict[str, list[tuple[float, float]]] = {"rolled back": [], "promoted": []}
    looked, at_checks = 0, looks(checks or world.checks)
    for check in at_checks:
        before = seen.n2.copy()
        traffic.arrive(seen, step, weights[step], shadows[step], check, check - looked)
        looked = check
        exposed += np.where(shadows[step], 0, seen.n2 - before)
        failed = worse_than_tolerated(metrics, world, seen, fail_at)
        passed = np.zeros(len(step), dtype=bool)
        if not held:
            last = step + 1 == len(steps)
            at = Steps(shadows[step], tests[step], last, plan.min_samples)
            passed, waits = shown_not_worse(metrics, world, seen, at, fail_at)
            passed &= ~failed
        promoted = passed & (step + 1 == len(steps))
        for name, which in (("rolled back", failed), ("promoted", promoted)):
            done[name] += [(check * per_check, float(share)) for share in exposed[which]]
        step = np.where(passed & ~promoted, step + 1, step)
        seen.forget(np.flatnonzero(passed))
        stay = ~(failed | promoted)
        if not stay.all():
            seen, step, exposed, waits = seen.keep(stay), step[stay], exposed[stay], waits[stay]
            traffic.keep(stay)
        if not len(step):
            break
    return {
        "world": world.name,
        "strategy": " → ".join(stage.strategy for stage in plan.stages),
        "runs": runs,
        "seed": seed,
        "held": held,
        "looks": len(at_checks),
        "fixed_size": world.fixed_size,
        "undecided": len(step) / runs,
        "held by likeness": float(waits.sum()) / runs,
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
