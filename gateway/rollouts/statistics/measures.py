"""
The numbers of each metric: the values of both sides, and the evidence for and against.

Accuracy is measured over the whole rollout, so a label that comes late counts where its answer was
given: the evidence of several steps is put together (see `_together`). Everything else is measured
in the current step.

Source of the tests: `evidence`. What the columns mean: `metrics`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gateway.rollouts.statistics import evidence
from gateway.rollouts.statistics.histogram import DISTANCE_BUCKETS, LATENCY_BUCKETS
from gateway.rollouts.statistics.latency_limits import latency_limits
from gateway.rollouts.statistics.metrics import Metric, MetricName
from gateway.rollouts.statistics.observations import Arm, Observations, Pairs

# So many labels of which none says "right" are complaints, whatever the plan calls them.
_COMPLAINTS_FROM = 20
_PAIR_VALUES = np.array([0.0, 0.5, 1.0])


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

    def at_least(self, log_not_worse: float) -> "Measurement":
        """With so much evidence for not worse at least, which was there before."""
        return replace(self, log_not_worse=max(self.log_not_worse, log_not_worse))


def measure(
    metric: Metric,
    seen: Observations,
    earlier: Sequence[Observations] = (),
    *,
    complaints: float | None = None,
) -> Measurement:
    """
    The numbers of one metric; zero samples where nothing was observed.

    Args:
        metric: Which.
        seen: Counts of the current step.
        earlier: Counts of the steps before it, for accuracy.
        complaints: The share of wrong answers that is complained about, if feedback is complaints.
    """
    if metric.name is not MetricName.ACCURACY:
        return _MEASURES[metric.name](metric, seen)
    steps = (*earlier, seen)
    if complaints is None and looks_like_complaints(steps):
        complaints = 1.0
    return (
        _accuracy(metric, steps) if complaints is None else _complaints(metric, steps, complaints)
    )


def looks_like_complaints(steps: Sequence[Observations]) -> bool:
    """Whether all feedback so far says that the answer which the caller saw was wrong."""
    labelled, wrong = 0.0, 0.0
    for seen in steps:
        for arm in (seen.champion_evidence, seen.challenger_evidence):
            if arm is seen.challenger_evidence and seen.pairs.labelled:
                continue  # in shadow nobody saw the challenger's answer
            labelled += arm.labelled
            wrong += arm.wrong
    return labelled >= _COMPLAINTS_FROM and wrong == labelled


def labels_seen(steps: Sequence[Observations]) -> float:
    """How many labels came so far, over all steps; 0 only if there was none."""
    return sum(
        seen.pairs.labelled + seen.champion_evidence.labelled + seen.challenger_evidence.labelled
        for seen in steps
    )


def _error_rate(metric: Metric, seen: Observations) -> Measurement:
    champion, challenger = seen.champion_evidence, seen.challenger_evidence
    return _rates(
        metric.tolerated,
        (champion.errors, champion.requests, challenger.errors, challenger.requests),
    )


def _accuracy(metric: Metric, steps: Sequence[Observations]) -> Measurement:
    """
    Pairs of all steps together, and the two arms of each step that has no pairs.

    Each pair is worth 0 (only the challenger right), ½ or 1 (only the champion right); the mean is
    (1 + loss of accuracy) / 2. Pairs on which both are right or both wrong hardly move the wealth,
    which makes the paired test stronger than two separate arms (as McNemar's).
    """
    pairs = sum((seen.pairs for seen in steps), Pairs())
    champion = sum((seen.champion_evidence for seen in steps), Arm())
    challenger = sum((seen.challenger_evidence for seen in steps), Arm())
    games = []
    if pairs.compared or pairs.labelled:
        lost, won = pairs.only_champion_right, pairs.only_challenger_right
        games.append(_lost(metric.tolerated, pairs.labelled, lost, won))
    apart = [seen for seen in steps if not seen.pairs.labelled]
    for seen in apart:
        one, other = seen.champion_evidence, seen.challenger_evidence
        counts = (one.wrong, one.labelled, other.wrong, other.labelled)
        games.append(_arms(metric.tolerated, counts))
    worse, not_worse = _together(games)
    return Measurement(
        _ratio(champion.labelled - champion.wrong, champion.labelled),
        _ratio(challenger.labelled - challenger.wrong, challenger.labelled),
        pairs.labelled + sum(seen.champion_evidence.labelled for seen in apart),
        pairs.labelled + sum(seen.challenger_evidence.labelled for seen in apart),
        worse,
        not_worse,
    )


def _complaints(metric: Metric, steps: Sequence[Observations], fraction: float) -> Measurement:
    """
    Complaints for each answer that a caller saw, in both arms. Only canary and A/B steps tell: in
    shadow all complaints are about the champion.
    """
    games = []
    champion, challenger = Arm(), Arm()
    for seen in steps:
        one, other = seen.champion_evidence, seen.challenger_evidence
        if seen.pairs.compared or seen.pairs.labelled or not other.requests:
            continue
        counts = (one.wrong, one.requests, other.wrong, other.requests)
        games.append(_arms(metric.tolerated * fraction, counts))
        champion, challenger = champion + one, challenger + other
    worse, not_worse = _together(games)
    return Measurement(
        _ratio(champion.requests - champion.wrong, champion.requests),
        _ratio(challenger.requests - challenger.wrong, challenger.requests),
        champion.requests,
        challenger.requests,
        worse,
        not_worse,
    )


def _class_recall(metric: Metric, seen: Observations) -> Measurement:
    """The class that lost most; with K classes the evidence against it counts a K-th."""
    known = {key: of for key, of in seen.classes.items() if of.labelled >= metric.min_samples}
    if not known:
        return Measurement(None, None, 0, 0, 0.0, 0.0)
    judged = {
        key: _lost(metric.tolerated, of.labelled, of.only_champion_right, of.only_challenger_right)
        for key, of in known.items()
    }
    worst = max(judged, key=lambda key: judged[key][0])
    of = known[worst]
    return Measurement(
        float(worst),
        (of.only_challenger_right - of.only_champion_right) / of.labelled,
        of.labelled,
        of.labelled,
        judged[worst][0] - math.log(len(judged)),
        min(not_worse for _, not_worse in judged.values()),
    )


def _latency(metric: Metric, seen: Observations) -> Measurement:
    champion, challenger = seen.champion_evidence.latencies, seen.challenger_evidence.latencies
    surely, perhaps = latency_limits(metric)
    worse, not_worse = evidence.percentiles(
        champion.dense(LATENCY_BUCKETS),
        challenger.dense(LATENCY_BUCKETS),
        percentile=metric.percentile,
        surely=surely,
        perhaps=perhaps,
    )
    return Measurement(
        champion.latency_s(metric.percentile),
        challenger.latency_s(metric.percentile),
        champion.total,
        challenger.total,
        float(worse),
        float(not_worse),
    )


def _compute(metric: Metric, seen: Observations) -> Measurement:  # noqa: ARG001 - as the others
    """In how many windows the challenger was slower than tolerated: by chance in half of them."""
    compute = seen.compute
    return Measurement(
        _ratio(compute.champion_s, compute.champion_runs),
        _ratio(compute.challenger_s, compute.challenger_runs),
        compute.windows,
        compute.windows,
        float(evidence.rate_above(compute.slower, compute.windows, 0.5)),
        float(evidence.rate_below(compute.slower, compute.windows, 0.5)),
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
    MetricName.COMPUTE: _compute,
    MetricName.CLASS_RECALL: _class_recall,
    MetricName.AGREEMENT: _agreement,
    MetricName.SCORE_DRIFT: _score_drift,
}


def _lost(tolerated: float, labelled: float, lost: float, won: float) -> tuple[float, float]:
    """Evidence that a loss of accuracy is above what is tolerated, and that it is below."""
    counts = np.array([won, labelled - lost - won, lost])
    mean = (1 + tolerated) / 2
    return (
        float(evidence.evidence_above(_PAIR_VALUES, counts, mean)),
        float(evidence.evidence_below(_PAIR_VALUES, counts, mean)),
    )


def _rates(tolerated: float, counts: tuple[float, float, float, float]) -> Measurement:
    """Hits and trials of the champion, then of the challenger."""
    champion_hits, champion_trials, challenger_hits, challenger_trials = counts
    return Measurement(
        _ratio(champion_hits, champion_trials),
        _ratio(challenger_hits, challenger_trials),
        champion_trials,
        challenger_trials,
        float(evidence.difference_above(*counts, tolerated)),
        float(evidence.difference_below(*counts, tolerated)),
    )


def _arms(tolerated: float, counts: tuple[float, float, float, float]) -> tuple[float, float]:
    """Evidence for worse and for not worse; a game that has not begun has its stake."""
    if not (counts[1] and counts[3]):
        return 0.0, 0.0
    measured = _rates(tolerated, counts)
    return measured.log_worse, measured.log_not_worse


def _together(games: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """
    The evidence of several games on the same question, in the order of their steps. All of the
    wealth is in the first game. Of what it has become, half is put aside when the next one begins
    and half is bet there, and so on. So a game costs at most half of the wealth, and the wealth is
    a supermartingale over the whole rollout, also while labels of earlier steps still come.
    """
    if not games:
        return 0.0, 0.0
    first, *further = np.array(games)
    kept = np.logaddexp(0.0, further) - math.log(2) if further else np.zeros((1, 2))
    worse, not_worse = first + kept.sum(axis=0)
    return float(worse), float(not_worse)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
