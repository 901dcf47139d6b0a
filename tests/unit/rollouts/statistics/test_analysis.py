import json
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.rollouts.statistics.analysis import Feedback, Step, analyse
from gateway.rollouts.statistics.histogram import (
    LATENCY_BUCKETS,
    LATENCY_BUCKETS_PER_DOUBLING,
    SHORTEST_LATENCY_S,
    Histogram,
    distance_bucket,
    latency_bucket,
)
from gateway.rollouts.statistics.measures import measure
from gateway.rollouts.statistics.metrics import (
    DEFAULT_METRICS,
    Metric,
    MetricName,
    OnFail,
    Strategy,
)
from gateway.rollouts.statistics.observations import Arm, ClassPairs, Compute, Observations, Pairs
from gateway.rollouts.statistics.sample_size import requests_to_decide
from gateway.rollouts.statistics.verdict import MetricVerdict, Outcome, Verdict

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


def judged(
    observations: Observations,
    strategy: Strategy = Strategy.SHADOW,
    *,
    earlier: Sequence[Observations] = (),
    feedback: Feedback = Feedback(),  # noqa: B008 - it never changes
    metrics: Sequence[Metric] = DEFAULT_METRICS,
    weight: float = 50,
    last: bool = False,
    age_s: float = 0.0,
    left_s: float = math.inf,
) -> Verdict:
    return analyse(
        observations,
        earlier=earlier,
        metrics=metrics,
        at=Step(strategy, weight=weight, last=last, age_s=age_s, left_s=left_s),
        feedback=feedback,
        comparisons=23,
        min_samples=100,
        alpha=0.05,
    )


def metric_of(verdict: Verdict, name: str) -> MetricVerdict:
    return next(metric for metric in verdict.metrics if metric.metric == name)


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
    MetricName.COMPUTE: replace(GOOD, compute=Compute(40, 38, 1, 2, 100, 100)),
    MetricName.CLASS_RECALL: replace(
        GOOD, classes={0: ClassPairs(400, 5, 5), 1: ClassPairs(60, 50, 0)}
    ),
    MetricName.ACCURACY: replace(
        GOOD, pairs=replace(GOOD.pairs, labelled=1500, only_champion_right=130)
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_each_metric_can_fail_a_step(name: MetricName) -> None:
    """One bad metric fails the whole check and its sentence is the verdict's."""
    verdict = judged(BAD[name])
    failed = [metric for metric in verdict.metrics if metric.outcome is Outcome.FAILED]
    assert [metric.metric for metric in failed] == [name]
    assert verdict.outcome is Outcome.FAILED
    assert verdict.sentence == failed[0].sentence
    assert "worse than the tolerated" in verdict.sentence
    assert failed[0].chance_if_tolerable < 0.05 / 23


UNLIKE = {
    MetricName.AGREEMENT: replace(GOOD, pairs=replace(GOOD.pairs, disagreed=2900)),
    MetricName.SCORE_DRIFT: replace(GOOD, pairs=replace(GOOD.pairs, distances=Histogram({40: 99}))),
}


@pytest.mark.parametrize("name", UNLIKE)
def test_likeness_holds_unless_the_plan_says_otherwise(name: MetricName) -> None:
    """Other answers hold the rollout: they roll back, or do nothing, only if that is asked for."""
    held = judged(UNLIKE[name])
    assert (held.outcome, held.held) == (Outcome.INCONCLUSIVE, True)
    assert metric_of(held, name).sentence == held.sentence
    for on_fail, outcome in (
        (OnFail.ROLLBACK, Outcome.FAILED),
        (OnFail.OBSERVE, Outcome.SUCCESSFUL),
    ):
        metrics = [replace(m, on_fail=on_fail) if m.name is name else m for m in DEFAULT_METRICS]
        verdict = judged(UNLIKE[name], metrics=metrics)
        assert (verdict.outcome, verdict.held) == (outcome, False)


@pytest.mark.parametrize("name", UNLIKE)
def test_labels_overrule_likeness(name: MetricName) -> None:
    """Where labels show that the challenger is as good, it passes however unlike its answers."""
    unlike = UNLIKE[name]
    better = replace(
        unlike,
        pairs=replace(unlike.pairs, labelled=500, only_challenger_right=60, only_champion_right=20),
    )
    assert judged(better).outcome is Outcome.SUCCESSFUL
    few = replace(better, pairs=replace(better.pairs, labelled=20, only_challenger_right=2))
    waiting = judged(few)
    assert (waiting.outcome, waiting.held) == (Outcome.INCONCLUSIVE, False)
    late = judged(few, feedback=Feedback(expected=True, late=True))
    assert (late.outcome, late.held) == (Outcome.INCONCLUSIVE, True)


def test_labels_of_earlier_steps_count() -> None:
    """A label that comes late counts where its answer was given, also for a canary's verdict."""
    shadow = replace(GOOD, pairs=replace(GOOD.pairs, labelled=1500, only_champion_right=130))
    now = replace(GOOD, pairs=Pairs())
    assert judged(now, Strategy.CANARY).outcome is Outcome.SUCCESSFUL
    verdict = judged(now, Strategy.CANARY, earlier=[shadow])
    assert verdict.outcome is Outcome.FAILED
    assert metric_of(verdict, "accuracy").outcome is Outcome.FAILED


def test_expected_labels_are_waited_for() -> None:
    """Where labels are expected none passes without them: the shadow at once, or the last step."""
    expected, late = Feedback(expected=True), Feedback(expected=True, late=True)
    canary = replace(GOOD, pairs=Pairs())
    assert judged(GOOD, feedback=expected).outcome is Outcome.INCONCLUSIVE
    assert judged(GOOD, feedback=late).outcome is Outcome.SUCCESSFUL
    for feedback in (expected, late):
        between = judged(canary, Strategy.CANARY, feedback=feedback)
        assert between.outcome is Outcome.SUCCESSFUL
        last = judged(canary, Strategy.CANARY, feedback=feedback, last=True)
        assert (last.outcome, last.sentence) == (
            Outcome.INCONCLUSIVE,
            "No data on the accuracy yet.",
        )


def test_accuracy_that_was_shown_stays_shown() -> None:
    """Few labels of a canary take nothing from a shadow's: only labels that say "worse" do."""
    canary = replace(
        GOOD,
        champion=replace(GOOD.champion, labelled=3, wrong=0),
        challenger=replace(GOOD.challenger, labelled=3, wrong=1),
        pairs=Pairs(),
    )
    before = judged(canary, Strategy.CANARY, last=True)
    assert before.outcome is Outcome.INCONCLUSIVE
    shadow = replace(GOOD, pairs=replace(GOOD.pairs, labelled=60))
    shown = Feedback(shown=True)
    after = judged(canary, Strategy.CANARY, last=True, earlier=[shadow], feedback=shown)
    assert (after.outcome, after.shows(MetricName.ACCURACY)) == (Outcome.SUCCESSFUL, True)
    worse = replace(canary, challenger=replace(GOOD.challenger, labelled=900, wrong=400))
    worse = replace(worse, champion=replace(GOOD.champion, labelled=900, wrong=90))
    found = judged(worse, Strategy.CANARY, last=True, earlier=[shadow], feedback=shown)
    assert found.outcome is Outcome.FAILED


def test_a_step_without_labels_takes_nothing_from_the_evidence() -> None:
    """Evidence on accuracy is the same with steps between that had none, in whatever number."""
    shadow = replace(GOOD, pairs=replace(GOOD.pairs, labelled=700))
    canary = replace(GOOD, pairs=Pairs())
    one, many = (
        metric_of(judged(canary, Strategy.CANARY, earlier=[shadow, *[canary] * n]), "accuracy")
        for n in (0, 5)
    )
    assert one.chance_if_worse == many.chance_if_worse < 0.05


def test_complaints_are_no_sample() -> None:
    """Feedback that never says "right" is compared by answer, not by label, and not in shadow."""
    shadow = replace(GOOD, champion=replace(GOOD.champion, labelled=40, wrong=40))
    pairs = replace(shadow.pairs, labelled=40, only_challenger_right=15)
    blind = judged(replace(shadow, pairs=pairs))
    assert metric_of(blind, "accuracy").outcome is Outcome.INCONCLUSIVE
    canary = replace(
        GOOD,
        champion=replace(GOOD.champion, labelled=150, wrong=150),
        challenger=replace(GOOD.challenger, labelled=300, wrong=300),
        pairs=Pairs(),
    )
    verdict = judged(canary, Strategy.CANARY, feedback=Feedback(True, complaints=0.5))
    assert metric_of(verdict, "accuracy").outcome is Outcome.FAILED
    equal = replace(canary, challenger=replace(GOOD.challenger, labelled=150, wrong=150))
    verdict = judged(equal, Strategy.CANARY, feedback=Feedback(True, complaints=0.5))
    assert metric_of(verdict, "accuracy").outcome is not Outcome.FAILED


def test_a_time_is_tolerated_up_to_the_larger_of_ratio_and_floor() -> None:
    """Two milliseconds more pass whatever the ratio, and the sentence says both."""
    fast = replace(
        GOOD,
        champion=Arm(3000, 0, Histogram({latency_bucket(0.001): 3000})),
        challenger=Arm(3000, 0, Histogram({latency_bucket(0.0028): 3000})),
    )
    latency = metric_of(judged(fast), "latency")
    assert latency.outcome is Outcome.SUCCESSFUL
    assert "+20% or +2 ms" in latency.sentence
    strict = [
        replace(m, floor_s=0.0) if m.name is MetricName.LATENCY else m for m in DEFAULT_METRICS
    ]
    assert metric_of(judged(fast, metrics=strict), "latency").outcome is Outcome.FAILED


@pytest.mark.parametrize(
    ("ratio", "outcome"), [(1.193, Outcome.SUCCESSFUL), (1.207, Outcome.FAILED)]
)
def test_the_dead_zone_of_latency_is_below_half_a_percent(ratio: float, outcome: Outcome) -> None:
    """A ratio 0.6 % from the tolerated one is decided by enough requests."""
    draws = np.random.default_rng(1).uniform(math.log(0.05), math.log(0.2), 2_000_000)

    def histogram(slower: float) -> Histogram:
        places, counts = np.unique(
            (
                (draws - math.log(SHORTEST_LATENCY_S / slower))
                / math.log(2)
                * LATENCY_BUCKETS_PER_DOUBLING
            ).astype(int),
            return_counts=True,
        )
        return Histogram(dict(zip(places.tolist(), (counts * 50.0).tolist(), strict=True)))

    champion, challenger = (Arm(1e8, 0, histogram(slower)) for slower in (1.0, ratio))
    seen = replace(GOOD, champion=champion, challenger=challenger)
    assert metric_of(judged(seen), "latency").outcome is outcome


def test_computing_beats_waiting() -> None:
    """Where a canary's computing decides, latency is a guardrail: it blocks nothing, but fails."""
    seen = replace(GOOD, compute=Compute(30, 2, 1, 1, 200, 200), pairs=Pairs())
    seen = replace(seen, champion=arm(60), challenger=arm(60, seed=2))
    verdict = judged(seen, Strategy.CANARY)
    assert metric_of(verdict, "compute").outcome is Outcome.SUCCESSFUL
    assert not metric_of(verdict, "latency").required
    slow = replace(seen, champion=arm(3000), challenger=arm(3000, slower=1.5, seed=2))
    assert judged(slow, Strategy.CANARY).outcome is Outcome.FAILED


def test_a_short_queue_alone_passes_nothing() -> None:
    """Where computing is measured at all, a step waits for it: the smaller arm is faster anyway."""
    canary = replace(GOOD, pairs=Pairs())
    assert judged(canary, Strategy.CANARY).outcome is Outcome.SUCCESSFUL
    watched = replace(canary, compute=Compute(1, 0, 1, 1, 5, 5))
    assert judged(watched, Strategy.CANARY).outcome is Outcome.INCONCLUSIVE


def test_the_larger_arm_need_not_be_as_fast() -> None:
    """Beyond a half the challenger's queue is the longer one: its latency decides nothing."""
    slow = replace(GOOD, challenger=arm(3000, slower=1.5, seed=2), pairs=Pairs())
    even = judged(slow, Strategy.CANARY, weight=50)
    assert even.outcome is Outcome.FAILED
    verdict = judged(slow, Strategy.CANARY, weight=80)
    assert not metric_of(verdict, "latency").required
    assert verdict.outcome is not Outcome.FAILED


def test_a_shadow_without_room_leaves_the_times_to_a_later_step() -> None:
    """Copies that could not be timed hold up a shadow only if nothing follows it."""
    untimed = replace(GOOD, champion=Arm(3000, 6), challenger=Arm(3000, 6))
    assert not metric_of(judged(untimed), "latency").required
    assert judged(untimed).outcome is Outcome.SUCCESSFUL
    assert judged(untimed, last=True).outcome is Outcome.INCONCLUSIVE
    few = replace(untimed, champion=Arm(300), challenger=Arm(300))
    assert metric_of(judged(few), "latency").required
    timed = replace(untimed, compute=Compute(30, 2, 1, 1, 200, 200), challenger=arm(3000))
    timed = replace(timed, champion=arm(3000, seed=2))
    assert metric_of(judged(timed), "latency").required


def test_a_lost_side_of_the_split_holds() -> None:
    """A share that is not the weight means that one side's requests are lost: nothing passes."""
    canary = replace(GOOD, pairs=Pairs())
    assert judged(canary, Strategy.CANARY).outcome is Outcome.SUCCESSFUL
    held = judged(canary, Strategy.CANARY, weight=40)
    assert (held.outcome, held.held) == (Outcome.INCONCLUSIVE, True)
    assert "not comparable" in held.sentence


def test_a_verdict_tells_how_long_it_takes() -> None:
    """The forecast is about where the evidence suffices; one beyond the deadline is noticed."""
    seen = GOOD.scaled(0.05)
    verdict = judged(seen, age_s=100.0, left_s=1e6)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.more_s is not None
    assert verdict.notice == ""
    factor = 1 + verdict.more_s / 100
    assert judged(seen.scaled(1.3 * factor)).outcome is Outcome.SUCCESSFUL
    assert judged(seen.scaled(0.75 * factor)).outcome is Outcome.INCONCLUSIVE
    late = judged(seen, age_s=100.0, left_s=10.0)
    assert "would help" in late.notice
    nothing = judged(Observations(), age_s=100.0, left_s=1e6)
    assert (nothing.more_s, "cannot be decided" in nothing.notice) == (None, True)


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
    """With the first feedback on a pair, accuracy has to be decided before the shadow passes."""
    some = replace(GOOD, pairs=replace(GOOD.pairs, labelled=1, only_champion_right=0))
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
histograms = st.dictionaries(st.integers(0, 49), st.integers(1, 100).map(float), max_size=3).map(
    Histogram
)
arms = st.builds(Arm, counts, counts, histograms, counts, counts)
pairs = st.builds(Pairs, counts, counts, histograms, counts, counts, counts)
classes = st.dictionaries(
    st.integers(-3, 9), st.builds(ClassPairs, counts, counts, counts), max_size=2
)
computes = st.builds(Compute, counts, counts, counts, counts, counts, counts)
observations = st.builds(
    Observations,
    arms,
    arms,
    pairs,
    arms,
    arms,
    counts,
    counts,
    classes,
    counts,
    counts,
    counts,
    computes,
)


@pytest.mark.slow
@given(observations, observations, observations)
@settings(deadline=None)
def test_merging_does_not_depend_on_the_order(
    one: Observations, two: Observations, three: Observations
) -> None:
    """Counts of several gateways add up to the same in any order, and nothing is the zero."""
    assert (one + two) + three == three + (two + one)
    assert one + Observations() == one


@given(observations)
@settings(deadline=None)
def test_observations_round_trip_through_json(one: Observations) -> None:
    """What is written as JSON is read back as it was."""
    assert Observations.from_json(json.loads(json.dumps(one.to_json()))) == one


@given(st.floats(1e-6, 500))
def test_latency_buckets_are_narrow(latency_s: float) -> None:
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
    assert value == pytest.approx(float(np.quantile(draws, 0.95)), rel=0.0025)
    assert Histogram().latency_s(95) is None


def test_distances_beyond_the_scale_take_the_ends() -> None:
    """A distance of exactly 1, or a rounding error beside 0, has a bucket."""
    assert (distance_bucket(1.0), distance_bucket(-1e-9), distance_bucket(0.021)) == (49, 0, 1)


def test_planned_sample_size_is_where_the_evidence_suffices() -> None:
    """One request fewer than planned is undecided, the planned number decides."""
    metric = METRICS[MetricName.ERROR_RATE]
    one = Observations(Arm(0.5, 0.001), Arm(0.5, 0.025))
    size = requests_to_decide(metric, one, comparisons=23)
    assert size.outcome is Outcome.FAILED
    need = math.log(23 / 0.05)
    assert measure(metric, one.scaled(size.requests)).log_worse >= need
    assert measure(metric, one.scaled(size.requests - 1)).log_worse < need


def test_what_cannot_be_told_apart_is_planned_as_inconclusive() -> None:
    """Exactly at the tolerance no number of requests decides; the planner stops at its limit."""
    metric = METRICS[MetricName.ERROR_RATE]
    one = Observations(Arm(0.5, 0.005), Arm(0.5, 0.010))
    size = requests_to_decide(metric, one, comparisons=23, limit=100_000)
    assert (size.outcome, size.requests) == (Outcome.INCONCLUSIVE, 100_000)
