import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gateway.rollouts.statistics.analysis import Feedback, Step, analyse
from gateway.rollouts.statistics.histogram import Histogram
from gateway.rollouts.statistics.metrics import DEFAULT_METRICS, MetricName, Strategy
from gateway.rollouts.statistics.observations import Arm, Compute, Observations, Pairs
from gateway.rollouts.statistics.verdict import Outcome
from perf.rollout_simulation import planning, tables, worlds
from perf.rollout_simulation.bounds import Metrics
from perf.rollout_simulation.judging import Steps, shown_not_worse, worse_than_tolerated
from perf.rollout_simulation.rollouts import PLANS, simulate
from perf.rollout_simulation.traffic import Counts, Traffic

# The simulation draws score distances from three values, the product keeps fifty buckets.
COMPLAINTS = replace(worlds.WORSE, expected=True, complaints=True, feedback=0.5)
LATE = replace(worlds.WORSE, expected=True, delay_s=100)
METRICS = [metric for metric in DEFAULT_METRICS if metric.name is not MetricName.SCORE_DRIFT]


def observed(seen: Counts, run: int) -> Observations:
    def latencies(row: worlds.Array) -> Histogram:
        return Histogram({worlds.LOW + i: float(count) for i, count in enumerate(row) if count})

    def arm(second: str) -> Arm:
        of, errors = (float(getattr(seen, name + second)[run]) for name in ("n", "e"))
        labelled, wrong = seen.arms[run, 0, 2:] if second else seen.arms[run, 0, :2]
        times = latencies(getattr(seen, "latency" + second)[run])
        return Arm(of, errors, times, float(labelled), float(wrong))

    won, same, lost = (float(count) for count in seen.judged[run])
    pairs = Pairs(
        compared=float(seen.pairs[run]),
        disagreed=float(seen.disagreed[run]),
        labelled=won + same + lost,
        only_champion_right=lost,
        only_challenger_right=won,
    )
    compute = Compute(windows=float(seen.windows[run]), slower=float(seen.slow[run]))
    return Observations(arm(""), arm("2"), pairs, compute=compute)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize("last", [False, True])
def test_the_simulation_judges_as_the_product_does(strategy: Strategy, last: bool) -> None:
    """For many drawn counts the simulation's verdict is the very one of `analyse`."""
    rng = np.random.default_rng(5)
    runs, outcomes = 4, set()
    shadow = np.full(runs, strategy is Strategy.SHADOW)
    at = Steps(shadow, np.full(runs, strategy is Strategy.AB), np.full(runs, last), 100)
    weight, step = np.full(runs, 0.5), np.zeros(runs, dtype=int)
    for world in (*worlds.WORLDS, worlds.EDGE, worlds.BETTER_5, COMPLAINTS, LATE):
        traffic, metrics = Traffic(world, rng), Metrics()
        seen = Counts.none(runs, 1)
        for check in range(1, 51):
            traffic.arrive(seen, step, weight, shadow, check)
            seen.drift[:] = 0
            if check % 10:
                continue
            need = math.log(23 / 0.05)
            shown_before = seen.shown > 0
            failed = worse_than_tolerated(metrics, world, seen, need)
            passed, held = shown_not_worse(metrics, world, seen, at, need)
            for run in range(runs):
                verdict = analyse(
                    observed(seen, run),
                    metrics=METRICS,
                    at=Step(strategy, weight=50, last=last),
                    feedback=Feedback(
                        world.expected,
                        world.expected and (world.delay_s > 0 or world.complaints),
                        world.feedback if world.complaints else None,
                        shown=bool(shown_before[run]),
                    ),
                    comparisons=23,
                    min_samples=100,
                    alpha=0.05,
                )
                assert failed[run] == (verdict.outcome is Outcome.FAILED), verdict.sentence
                assert (passed & ~failed)[run] == (verdict.outcome is Outcome.SUCCESSFUL)
                assert (held & ~failed)[run] == verdict.held
                outcomes.add(verdict.outcome)
    assert {Outcome.FAILED, Outcome.INCONCLUSIVE} <= outcomes


@pytest.mark.slow
def test_equal_versions_are_seldom_rolled_back_and_bad_ones_always() -> None:
    """In a small simulation at most 5 % of A/A are rolled back, and all failing versions."""
    chain = PLANS["half"]
    same = simulate(replace(worlds.SAME, feedback=0.0), chain, runs=200, seed=3, checks=400)
    bad = simulate(worlds.FAILING, chain, runs=200, seed=4, checks=400)
    assert same["rolled back"]["share"] <= 0.05
    assert same["promoted"]["share"] > 0.95
    assert bad["rolled back"]["share"] == 1


def test_equal_versions_with_labels_are_promoted() -> None:
    """
    With labels on one answer in ten at least 95 % of A/A rollouts with the default plan end by
    themselves: what the shadow has shown of accuracy need not be shown by the canary again.
    """
    same = simulate(worlds.SAME, PLANS["chain"], runs=100, seed=6)
    assert same["promoted"]["share"] >= 0.95
    assert same["rolled back"]["share"] <= 0.05


@pytest.mark.slow
def test_the_document_has_the_sample_sizes_of_the_code() -> None:
    """The table of docs/versioning-statistics.md is what the deciding functions compute."""
    document = Path(__file__).parents[3] / "docs/versioning-statistics.md"
    _, _, rest = document.read_text().partition("<!-- sample-sizes -->\n")
    written, _, _ = rest.partition("\n<!-- /sample-sizes -->")
    assert written == tables.sample_size_table(planning.sample_sizes())
