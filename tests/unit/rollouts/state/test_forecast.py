import math
from dataclasses import replace
from statistics import NormalDist

import pytest

from gateway.rollouts.state.forecast import (
    FEWEST_STEPS,
    STEPS_BY_CARE,
    KnownTraffic,
    forecast,
    suggested_steps,
)
from gateway.rollouts.state.plan import LabelKind, Labels, Plan, Stage
from gateway.rollouts.statistics.histogram import Histogram, latency_bucket
from gateway.rollouts.statistics.metrics import DEFAULT_METRICS, MetricName
from perf.rollout_simulation import worlds
from perf.rollout_simulation.rollouts import PLANS, simulate

QUANTILES = [NormalDist().inv_cdf((place + 0.5) / 100) for place in range(100)]
TIMES = Histogram({latency_bucket(0.06 * math.exp(0.3 * z)): 0.01 for z in QUANTILES})
TRAFFIC = KnownTraffic(10.0, 0.002, TIMES)
CHAIN = PLANS["chain"]


def test_a_forecast_is_close_to_what_happens() -> None:
    """It lies within a third of the median of simulated rollouts of the same version."""
    found = forecast(PLANS["half"], TRAFFIC)
    same = simulate(replace(worlds.SAME, feedback=0.0), PLANS["half"], runs=200, seed=8)
    assert found.requests is not None
    assert same["promoted"]["requests_median"] == pytest.approx(found.requests, rel=1 / 3)


def test_more_traffic_is_faster_and_needs_no_more_requests() -> None:
    """Without traffic nothing is said of the time; with a hundred times as much it is shorter."""
    unknown = forecast(CHAIN, replace(TRAFFIC, requests_per_s=0.0))
    slow, fast = (forecast(CHAIN, replace(TRAFFIC, requests_per_s=rate)) for rate in (1.0, 100.0))
    assert unknown.seconds is None
    assert unknown.requests == slow.requests
    assert slow.seconds is not None
    assert fast.seconds is not None
    assert slow.seconds > 50 * fast.seconds
    assert slow.within(slow.seconds)
    assert not slow.within(slow.seconds / 2)
    assert not unknown.within(1e9)


@pytest.mark.slow
def test_labels_are_waited_for_where_the_analysis_waits() -> None:
    """At once in the shadow, late or as complaints in the last step, for as long as they take."""

    def deciders(labels: Labels) -> list[str]:
        steps = forecast(replace(CHAIN, labels=labels), TRAFFIC).steps
        return [step.decided_by for step in steps]

    assert deciders(Labels(fraction=0.01))[0] == MetricName.ACCURACY
    assert MetricName.ACCURACY not in deciders(Labels(fraction=0.01))[1:]
    for late in (Labels(delay_s=60), Labels(kind=LabelKind.COMPLAINTS)):
        found = deciders(late)
        assert MetricName.ACCURACY not in found[:-1]
        assert found[-1] == MetricName.ACCURACY
    assert deciders(Labels(delay_s=30 * 86_400))[-1] == "labels"


def test_what_cannot_be_decided_is_said() -> None:
    """An A/B test decides on accuracy, and without labels no number of requests does that."""
    found = forecast(PLANS["ab"], TRAFFIC)
    assert (found.requests, found.seconds) == (None, None)
    assert found.steps[0].decided_by == MetricName.ACCURACY
    observed = tuple(m for m in DEFAULT_METRICS if m.name is not MetricName.ACCURACY)
    assert forecast(replace(PLANS["ab"], metrics=observed), TRAFFIC).requests is not None


@pytest.mark.slow
def test_the_most_careful_steps_that_end_in_time_are_suggested() -> None:
    """Less traffic gives larger steps; no traffic, or no canary, gives no advice."""
    steps = [suggested_steps(CHAIN, replace(TRAFFIC, requests_per_s=r)) for r in (100, 0.5, 0.01)]
    assert steps == [STEPS_BY_CARE[0], STEPS_BY_CARE[1], FEWEST_STEPS]
    assert suggested_steps(CHAIN, replace(TRAFFIC, requests_per_s=0.0)) is None
    assert suggested_steps(Plan(stages=(Stage.of("shadow"),)), TRAFFIC) is None
