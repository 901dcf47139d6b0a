"""How many requests a decision needs, from the functions that decide."""

from dataclasses import replace
from typing import Any

from gateway.rollouts.statistics.histogram import LATENCY_BUCKETS, Histogram
from gateway.rollouts.statistics.metrics import Metric, MetricName, Strategy
from gateway.rollouts.statistics.observations import Arm, Observations, Pairs
from gateway.rollouts.statistics.sample_size import requests_to_decide
from perf.rollout_simulation.rollouts import PLANS
from perf.rollout_simulation.worlds import (
    BETTER,
    CHAMPION_ERRORS,
    CHAMPION_WRONG,
    DEFAULTS,
    EQUAL,
    FAILING,
    FLIPPED,
    SAME,
    SLOW,
    TIMED,
    WORSE,
    World,
    latency_shares,
)


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

    timed = TIMED if strategy is Strategy.SHADOW else 1.0

    def arm(of: float, errors: float, slower: float, wrong: float) -> Arm:
        shares = latency_shares(slower, 0, LATENCY_BUCKETS)
        spread = {i: of * timed * (1 - errors) * float(p) for i, p in enumerate(shares) if p > 1e-9}
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
