import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.rollouts.statistics.analysis import analyse
from gateway.rollouts.statistics.measures import measure
from gateway.rollouts.statistics.metrics import DEFAULT_METRICS, Metric, MetricName, Strategy
from gateway.rollouts.statistics.observations import (
    LATENCY_BUCKETS,
    LATENCY_BUCKETS_PER_DOUBLING,
    SHORTEST_LATENCY_S,
    Arm,
    Histogram,
    Observations,
    Pairs,
    distance_bucket,
    latency_bucket,
)
from gateway.rollouts.statistics.sample_size import requests_to_decide
from gateway.rollouts.statistics.verdict import Outcome, Verdict

METRICS = {metric.name: metric for metric in DEFAULT_METRICS}


def latencies(count: int, *, slower: float = 1.0, seed: int = 1) -> Histogram:
    draws = np.random.default_rng(seed).lognormal(math.log(0.06 * slower), 0.3, count)
    places, counts = np.unique([latency_bucket(draw) for draw in draws], return_counts=True)
    return Histogram(dict(zip(places.tolist(), counts.tolist(), strict=True)))


def arm(requests: int, *, errors: int = 0, slower: float = 1.0, seed: int = 1) -> Arm:
    return Arm(requests, errors, latencies(requests - errors, slower=slower, seed=seed))


GOOD = Observations(
    arm(3000, errors=6),
    arm(3000, errors=6, seed=2),
    Pairs(compared=3000, disagreed=60, distances=Histogram({0: 2900, 10: 100})),
)


def judged(observations: Observations, strategy: Strategy = Strategy.SHADOW) -> Verdict:
    return analyse(
        observations,
        metrics=DEFAULT_METRICS,
        strategy=strategy,
        comparisons=17,
        min_samples=100,
        alpha=0.05,
        stage=0,
        step=0,
        now=1.0,
    )


def test_a_good_challenger_is_successful() -> None:
    """Enough equal answers show that the challenger is not worse than tolerated."""
    verdict = judged(GOOD)
    assert verdict.outcome is Outcome.SUCCESSFUL
    assert "3,000 requests" in verdict.sentence


@pytest.mark.parametrize("strategy", Strategy)
def test_no_data_is_inconclusive(strategy: Strategy) -> None:
    """Nothing observed is neither success nor failure, for any metric."""
    verdict = judged(Observations(), strategy)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert {metric.outcome for metric in verdict.metrics} == {Outcome.INCONCLUSIVE}


BAD = {
    MetricName.ERROR_RATE: replace(GOOD, challenger=arm(3000, errors=150)),
    MetricName.LATENCY: replace(GOOD, challenger=arm(3000, slower=1.5, seed=2)),
    MetricName.AGREEMENT: replace(GOOD, pairs=replace(GOOD.pairs, disagreed=2900)),
    MetricName.SCORE_DRIFT: replace(GOOD, pairs=replace(GOOD.pairs, distances=Histogram({40: 99}))),
    MetricName.ACCURACY: replace(
        GOOD, pairs=replace(GOOD.pairs, labelled=1500, only_champion_right=130)
    ),
}


@pytest.mark.parametrize("name", MetricName)
def test_each_metric_can_fail_a_step(name: MetricName) -> None:
    """One bad metric fails the whole check and its sentence is the verdict's."""
    verdict = judged(BAD[name])
    failed = [metric for metric in verdict.metrics if metric.outcome is Outcome.FAILED]
    assert [metric.metric for metric in failed] == [name]
    assert verdict.outcome is Outcome.FAILED
    assert verdict.sentence == failed[0].sentence
    assert "worse than the tolerated" in verdict.sentence
    assert failed[0].chance_if_tolerable < 0.05 / 17


def test_unpaired_accuracy_decides_an_ab_test() -> None:
    """Feedback on separate arms fails a version that is often wrong, and is required to pass."""
    bad = replace(
        GOOD,
        champion=replace(GOOD.champion, labelled=1500, wrong=150),
        challenger=replace(GOOD.challenger, labelled=1500, wrong=400),
        pairs=Pairs(),
    )
    assert judged(bad, Strategy.AB).outcome is Outcome.FAILED
    silent = replace(GOOD, pairs=Pairs())
    assert judged(silent, Strategy.AB).outcome is Outcome.INCONCLUSIVE
    assert judged(silent, Strategy.CANARY).outcome is Outcome.SUCCESSFUL


def test_optional_metric_blocks_shadow_once_there_is_data() -> None:
    """With some feedback on pairs, accuracy has to be decided before the shadow passes."""
    some = replace(GOOD, pairs=replace(GOOD.pairs, labelled=60, only_champion_right=2))
    assert judged(some).outcome is Outcome.INCONCLUSIVE
    assert judged(GOOD).outcome is Outcome.SUCCESSFUL


def test_minimum_samples_hold_back_every_verdict() -> None:
    """Below its minimum a metric says nothing, however bad it looks."""
    few = replace(GOOD, challenger=arm(19, errors=19))
    assert judged(few).outcome is Outcome.INCONCLUSIVE
    enough = replace(GOOD, challenger=arm(20, errors=20))
    assert judged(enough).outcome is Outcome.FAILED


def test_negative_tolerance_asks_for_a_better_challenger() -> None:
    """With a tolerance of -5 % an equal latency is not enough, a much lower one is."""
    metric = replace(METRICS[MetricName.LATENCY], tolerated=-0.05)
    equal = measure(metric, GOOD)
    faster = measure(metric, replace(GOOD, challenger=arm(3000, slower=0.6, seed=2)))
    assert equal.log_not_worse < 0
    assert faster.log_not_worse > 10


@pytest.mark.parametrize(
    "bad",
    [{"tolerated": 1.0}, {"percentile": 100.0}, {"min_samples": 0}],
)
def test_metrics_without_sense_are_refused(bad: dict[str, float]) -> None:
    """Tolerances, percentiles and minimums outside their range are errors."""
    with pytest.raises(ValueError, match="must"):
        replace(METRICS[MetricName.LATENCY], **bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="above 0"):
        Metric(MetricName.AGREEMENT, 0.0)


counts = st.integers(0, 1000).map(float)
histograms = st.dictionaries(st.integers(0, 49), st.integers(1, 100).map(float)).map(Histogram)
arms = st.builds(Arm, counts, counts, histograms, counts, counts)
pairs = st.builds(Pairs, counts, counts, histograms, counts, counts, counts)
observations = st.builds(Observations, arms, arms, pairs)


@pytest.mark.slow
@given(observations, observations, observations)
def test_merging_does_not_depend_on_the_order(
    one: Observations, two: Observations, three: Observations
) -> None:
    """Counts of several gateways add up to the same in any order, and nothing is the zero."""
    assert (one + two) + three == three + (two + one)
    assert one + Observations() == one


@given(observations)
def test_observations_round_trip_through_json(one: Observations) -> None:
    """What is written as JSON is read back as it was."""
    assert Observations.from_json(json.loads(json.dumps(one.to_json()))) == one


@given(st.floats(1e-6, 500))
def test_latency_buckets_are_two_percent_wide(latency_s: float) -> None:
    """A latency lies between its bucket's edges; the ends take what is beyond."""
    place = latency_bucket(latency_s)
    low = SHORTEST_LATENCY_S * 2 ** (place / LATENCY_BUCKETS_PER_DOUBLING)
    if place > 0:
        assert latency_s >= low * (1 - 1e-9)
    if place < LATENCY_BUCKETS - 1:
        assert latency_s <= low * 2 ** (1 / LATENCY_BUCKETS_PER_DOUBLING) * (1 + 1e-9)


def test_percentile_of_a_histogram_is_close_to_the_samples() -> None:
    """The p95 read from buckets is within a bucket of the sample's; without data there is none."""
    draws = np.random.default_rng(1).lognormal(math.log(0.06), 0.3, 5000)
    value = latencies(5000).latency_s(95)
    assert value == pytest.approx(float(np.quantile(draws, 0.95)), rel=0.022)
    assert Histogram().latency_s(95) is None


def test_distances_beyond_the_scale_take_the_ends() -> None:
    """A distance of exactly 1, or a rounding error beside 0, has a bucket."""
    assert (distance_bucket(1.0), distance_bucket(-1e-9), distance_bucket(0.021)) == (49, 0, 1)


def test_planned_sample_size_is_where_the_evidence_suffices() -> None:
    """One request fewer than planned is undecided, the planned number decides."""
    metric = METRICS[MetricName.ERROR_RATE]
    one = Observations(Arm(0.5, 0.001), Arm(0.5, 0.025))
    size = requests_to_decide(metric, one, comparisons=17)
    assert size.outcome is Outcome.FAILED
    need = math.log(17 / 0.05)
    assert measure(metric, one.scaled(size.requests)).log_worse >= need
    assert measure(metric, one.scaled(size.requests - 1)).log_worse < need


def test_what_cannot_be_told_apart_is_planned_as_inconclusive() -> None:
    """Exactly at the tolerance no number of requests decides; the planner stops at its limit."""
    metric = METRICS[MetricName.ERROR_RATE]
    one = Observations(Arm(0.5, 0.005), Arm(0.5, 0.010))
    size = requests_to_decide(metric, one, comparisons=17, limit=100_000)
    assert (size.outcome, size.requests) == (Outcome.INCONCLUSIVE, 100_000)
