"""What a metric's verdict says to people."""

import math

from gateway.rollouts.statistics.measures import Measurement
from gateway.rollouts.statistics.metrics import Metric, MetricName
from gateway.rollouts.statistics.verdict import Outcome

_LABELS = {
    MetricName.ERROR_RATE: "error rate",
    MetricName.LATENCY: "latency",
    MetricName.COMPUTE: "mean computing time",
    MetricName.ACCURACY: "accuracy",
    MetricName.CLASS_RECALL: "change of recall",
    MetricName.AGREEMENT: "agreement with the champion",
    MetricName.SCORE_DRIFT: "mean distance of the scores",
}
_COUNTED = {
    MetricName.COMPUTE: "windows",
    MetricName.CLASS_RECALL: "labelled answers",
    MetricName.ACCURACY: "labelled answers",
}


def sentence_of(metric: Metric, measured: Measurement, outcome: Outcome) -> str:
    """Say what was measured, against what is tolerated, and what follows."""
    label = _LABELS[metric.name]
    fewest = min(measured.champion_samples, measured.challenger_samples)
    if metric.name is MetricName.LATENCY:
        label = f"p{metric.percentile:g} latency"
    if not fewest:
        return f"No data on the {label} yet."
    if fewest < metric.min_samples and outcome is Outcome.INCONCLUSIVE:
        return f"{int(fewest):,} of at least {metric.min_samples:,} samples of the {label} so far."
    value = f"{label} {_value(metric, measured)}"
    seen = f"over {int(measured.challenger_samples):,}"
    if not metric.name.paired and metric.name is not MetricName.COMPUTE:
        seen += f" and {int(measured.champion_samples):,}"
    seen += f" {_COUNTED.get(metric.name, 'answers')}"
    tolerated = _tolerated(metric)
    if outcome is Outcome.FAILED:
        odds = _odds(measured.log_worse)
        return (
            f"The challenger's {value} {seen}, worse than the tolerated {tolerated}; "
            f"chance does this to a tolerable version at most once in {odds}."
        )
    if outcome is Outcome.SUCCESSFUL:
        return f"The challenger's {value} {seen}, within the tolerated {tolerated}."
    return (
        f"The challenger's {value} {seen}: too little evidence to tell it from the "
        f"tolerated {tolerated}."
    )


def _value(metric: Metric, measured: Measurement) -> str:
    if metric.name is MetricName.CLASS_RECALL:
        change = (measured.challenger or 0.0) * 100
        return f"of class {int(measured.champion or 0):02d} is {change:+.2f} points"
    value = f"is {_number(metric, measured.challenger)}"
    if measured.champion is not None:
        value += f" against {_number(metric, measured.champion)}"
    return value


def _number(metric: Metric, value: float | None) -> str:
    if value is None:
        return "unknown"
    if metric.name.timed:
        return f"{value * 1000:.3g} ms"
    if metric.name is MetricName.SCORE_DRIFT:
        return f"{value:.3f}"
    return f"{value * 100:.2f} %"


def _tolerated(metric: Metric) -> str:
    match metric.name:
        case MetricName.LATENCY | MetricName.COMPUTE:
            ratio = f"{metric.tolerated:+.0%}"
            if metric.floor_s and metric.tolerated >= 0:
                return f"{ratio} or {metric.floor_s * 1000:+g} ms"
            return ratio
        case MetricName.AGREEMENT:
            return f"minimum of {(1 - metric.tolerated) * 100:g} %"
        case MetricName.SCORE_DRIFT:
            return f"{metric.tolerated:g}"
        case MetricName.ACCURACY | MetricName.CLASS_RECALL:
            return f"{-metric.tolerated * 100:+g} points"
        case MetricName.ERROR_RATE:
            return f"{metric.tolerated * 100:+g} points"


def _odds(log_evidence: float) -> str:
    if log_evidence > math.log(1e6):
        return "a million"
    return f"{int(math.exp(log_evidence)):,}"
