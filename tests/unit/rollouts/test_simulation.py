import math
from pathlib import Path

import numpy as np
import pytest

from gateway.rollouts.statistics.analysis import analyse
from gateway.rollouts.statistics.metrics import DEFAULT_METRICS, MetricName, Strategy
from gateway.rollouts.statistics.observations import Arm, Histogram, Observations, Pairs
from gateway.rollouts.statistics.verdict import Outcome
from perf.rollout_simulation import planning, tables, worlds
from perf.rollout_simulation.bounds import Metrics
from perf.rollout_simulation.judging import shown_not_worse, worse_than_tolerated
from perf.rollout_simulation.rollouts import PLANS, simulate
from perf.rollout_simulation.traffic import Counts, Traffic

# The simulation draws score distances from three values, the product keeps fifty buckets.
METRICS = [metric for metric in DEFAULT_METRICS if metric.name is not MetricName.SCORE_DRIFT]


def observed(seen: Counts, run: int) -> Observations:
    def latencies(row: worlds.Array) -> Histogram:
        return Histogram({worlds.LOW + i: float(count) for i, count in enumerate(row) if count})

    def arm(second: str) -> Arm:
        of, errors, labelled, wrong = (
            float(getattr(seen, name + second)[run]) for name in ("n", "e", "labelled", "wrong")
        )
        return Arm(of, errors, latencies(getattr(seen, "latency" + second)[run]), labelled, wrong)

    won, same, lost = (float(count) for count in seen.judged[run])
    pairs = Pairs(
        compared=float(seen.pairs[run]),
        disagreed=float(seen.disagreed[run]),
        labelled=won + same + lost,
        only_champion_right=lost,
        only_challenger_right=won,
    )
    return Observations(arm(""), arm("2"), pairs)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", Strategy)
def test_the_simulation_judges_as_the_product_does(strategy: Strategy) -> None:
    """For many drawn counts the simulation's verdict is the very one of `analyse`."""
    rng = np.random.default_rng(5)
    runs, outcomes = 4, set()
    shadow = np.full(runs, strategy is Strategy.SHADOW)
    test = np.full(runs, strategy is Strategy.AB)
    weight = np.full(runs, 0.5)
    for world in (*worlds.WORLDS, worlds.EDGE):
        traffic, metrics = Traffic(world, rng), Metrics(world)
        seen = Counts.none(runs)
        for check in range(1, 51):
            traffic.arrive(seen, weight, shadow, check)
            if check % 10:
                continue
            failed = worse_than_tolerated(metrics, seen, math.log(17 / 0.05))
            passed = shown_not_worse(metrics, seen, shadow, test, 100)
            for run in range(runs):
                verdict = analyse(
                    observed(seen, run),
                    metrics=METRICS,
                    strategy=strategy,
                    comparisons=17,
                    min_samples=100,
                    alpha=0.05,
                    stage=0,
                    step=0,
                    now=1.0,
                )
                assert failed[run] == (verdict.outcome is Outcome.FAILED), verdict.sentence
                assert (passed & ~failed)[run] == (verdict.outcome is Outcome.SUCCESSFUL)
                outcomes.add(verdict.outcome)
    assert {Outcome.FAILED, Outcome.INCONCLUSIVE} <= outcomes


def test_equal_versions_are_seldom_rolled_back_and_bad_ones_always() -> None:
    """In a small simulation at most 5 % of A/A are rolled back, and all failing versions."""
    chain = PLANS["half"]
    same = simulate(worlds.SAME, chain, runs=200, seed=3, checks=400)
    bad = simulate(worlds.FAILING, chain, runs=200, seed=4, checks=400)
    assert same["rolled back"]["share"] <= 0.05
    assert same["promoted"]["share"] > 0.95
    assert bad["rolled back"]["share"] == 1


@pytest.mark.slow
def test_the_document_has_the_sample_sizes_of_the_code() -> None:
    """The table of docs/versioning-statistics.md is what the deciding functions compute."""
    document = Path(__file__).parents[3] / "docs/versioning-statistics.md"
    _, _, rest = document.read_text().partition("<!-- sample-sizes -->\n")
    written, _, _ = rest.partition("\n<!-- /sample-sizes -->")
    assert written == tables.sample_size_table(planning.sample_sizes())
