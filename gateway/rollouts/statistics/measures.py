"""
The numbers of each metric: the values of both sides, and the evidence for and against.

Source of the tests: `evidence`. What the columns mean: `metrics`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gateway.rollouts.statistics import evidence
from gateway.rollouts.statistics.metrics import Metric, MetricName
from gateway.rollouts.statistics.observations import (
    DISTANCE_BUCKETS,
    LATENCY_BUCKETS,
    Observations,
    buckets_in_ratio,
)


@dataclass(frozen=True, slots=True)
class Measurement:
    """
    The numbers of one metric: values of both sides (None: it has none), samples of both sides, and
    the logarithms of the evidence for worse, and for not worse, than tolerated.
    """

    champion: float | None
    challenger: float | None
    champion_samples: float
    challenger_samples: float
    log_worse: float
    log_not_worse: float


def measure(metric: Metric, observations: Observations) -> Measurement:
    """The numbers of one metric; zero samples where nothing was observed."""
    return _MEASURES[metric.name](metric, observations)


def _error_rate(metric: Metric, seen: Observations) -> Measurement:
    champion, challenger = seen.champion, seen.challenger
    return _rates(
        metric, champion.errors, champion.requests, challenger.errors, challenger.requests
    )


def _accuracy(metric: Metric, seen: Observations) -> Measurement:
    pairs = seen.pairs
    champion, challenger = seen.champion, seen.challenger
    if not pairs.labelled:
        wrong = _rates(
            metric, champion.wrong, champion.labelled, challenger.wrong, challenger.labelled
        )
        return Measurement(
            None if wrong.champion is None else 1 - wrong.champion,
            None if wrong.challenger is None else 1 - wrong.challenger,
            wrong.champion_samples,
            wrong.challenger_samples,
            wrong.log_worse,
            wrong.log_not_worse,
        )
    # Each pair is worth 0 (only the challenger right), ½ or 1 (only the champion right); the mean
    # is (1 + loss of accuracy) / 2. Pairs on which both are right or both wrong hardly move the
    # wealth, which is what makes the paired test stronger than two separate arms (as McNemar's).
    lost, won = pairs.only_champion_right, pairs.only_challenger_right
    counts = np.array([won, pairs.labelled - lost - won, lost])
    values = np.array([0.0, 0.5, 1.0])
    mean = (1 + metric.tolerated) / 2
    return Measurement(
        _ratio(champion.labelled - champion.wrong, champion.labelled),
        _ratio(challenger.labelled - challenger.wrong, challenger.labelled),
        pairs.labelled,
        pairs.labelled,
        float(evidence.evidence_above(values, counts, mean)),
        float(evidence.evidence_below(values, counts, mean)),
    )


def _latency(metric: Metric, seen: Observations) -> Measurement:
    champion, challenger = seen.champion.latencies, seen.challenger.latencies
    worse, not_worse = evidence.percentile_ratio(
        champion.dense(LATENCY_BUCKETS),
        challenger.dense(LATENCY_BUCKETS),
        percentile=metric.percentile,
        ratio_in_buckets=buckets_in_ratio(1 + metric.tolerated),
    )
    return Measurement(
        champion.latency_s(metric.percentile),
        challenger.latency_s(metric.percentile),
        champion.total,
        challenger.total,
        float(worse),
        float(not_worse),
    )


def _agreement(metric: Metric, seen: Observations) -> Measurement:
    pairs = seen.pairs
    return Measurement(
        None,
        _ratio(pairs.compared - pairs.disagreed, pairs.compared),
        pairs.compared,
        pairs.compared,
        float(evidence.rate_above(pairs.disagreed, pairs.compared, metric.tolerated)),
        float(evidence.rate_below(pairs.disagreed, pairs.compared, metric.tolerated)),
    )


def _score_drift(metric: Metric, seen: Observations) -> Measurement:
    # A bucket's lower edge speaks for little drift, its upper edge for much: each question takes
    # the edge that weakens its answer.
    counts = seen.pairs.distances.dense(DISTANCE_BUCKETS)
    lower = np.arange(DISTANCE_BUCKETS) / DISTANCE_BUCKETS
    upper = lower + 1 / DISTANCE_BUCKETS
    total = float(counts.sum())
    return Measurement(
        None,
        float(counts @ (lower + upper) / 2 / total) if total else None,
        total,
        total,
        float(evidence.evidence_above(lower, counts, metric.tolerated)),
        float(evidence.evidence_below(upper, counts, metric.tolerated)),
    )


_MEASURES: dict[MetricName, Callable[[Metric, Observations], Measurement]] = {
    MetricName.ERROR_RATE: _error_rate,
    MetricName.LATENCY: _latency,
    MetricName.ACCURACY: _accuracy,
    MetricName.AGREEMENT: _agreement,
    MetricName.SCORE_DRIFT: _score_drift,
}


def _rates(
    metric: Metric,
    champion_hits: float,
    champion_trials: float,
    challenger_hits: float,
    challenger_trials: float,
) -> Measurement:
    counts = (champion_hits, champion_trials, challenger_hits, challenger_trials)
    return Measurement(
        _ratio(champion_hits, champion_trials),
        _ratio(challenger_hits, challenger_trials),
        champion_trials,
        challenger_trials,
        float(evidence.difference_above(*counts, metric.tolerated)),
        float(evidence.difference_below(*counts, metric.tolerated)),
    )


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
