"""
How much longer a decision takes: told at every check, so that nobody waits for what never comes.

Measure what was seen, then three times as much of the same, and so on until it suffices. The
logarithm of the evidence grows about linearly, so draw a line between the last two, and beyond
them. That is a forecast, not a bound.
"""

import math
from collections.abc import Sequence

from gateway.rollouts.statistics.measures import Measurement, measure
from gateway.rollouts.statistics.metrics import Metric
from gateway.rollouts.statistics.observations import Observations
from gateway.rollouts.statistics.verdict import MetricVerdict

# Beyond that a forecast is "never".
_MOST = 1e9
_STEP, _STEPS = 3, 4


def more_samples(
    metric: Metric,
    seen: Observations,
    earlier: Sequence[Observations],
    complaints: float | None,
    measured: Measurement,
    needs: tuple[float, float],
) -> int | None:
    """
    How many more samples of the challenger one of the two decisions needs.

    Args:
        metric, seen, earlier, complaints: As for `measure`.
        measured: What `measure` said of them.
        needs: Logarithms of the evidence, to fail and to pass.

    Returns:
        None if the evidence does not grow, or there is none to draw a line from.
    """
    samples = measured.challenger_samples
    if not samples or not measured.champion_samples:
        return None
    missing = metric.min_samples - min(samples, measured.champion_samples)
    factor, have, found = 1.0, measured, None
    for _ in range(_STEPS):
        then = measure(
            metric,
            seen.scaled(_STEP * factor),
            [each.scaled(_STEP * factor) for each in earlier],
            complaints=complaints,
        )
        found = _where(have, then, needs)
        if found is not None and found <= 1:
            break
        have, factor = then, _STEP * factor
    if found is None:
        return None
    # A last step that did not suffice is where `have` is now: the line goes on from before it.
    begun = factor if found <= 1 else factor / _STEP
    more = (begun * (1 + (_STEP - 1) * found) - 1) * samples
    return None if more > _MOST else math.ceil(max(more, missing, 1))


def _where(one: Measurement, other: Measurement, needs: tuple[float, float]) -> float | None:
    """How far from one to the other, and on, the evidence first suffices; None if it shrinks."""
    found = []
    for have, then, need in (
        (one.log_worse, other.log_worse, needs[0]),
        (one.log_not_worse, other.log_not_worse, needs[1]),
    ):
        if then > have:
            found.append(max(0.0, (need - have) / (then - have)))
    return min(found, default=None)


def notice_of(
    open_: Sequence[MetricVerdict],
    samples: int,
    min_samples: int,
    *,
    age_s: float,
    left_s: float,
) -> tuple[float | None, str]:
    """
    When the step is due to be decided, and whether that is before its deadline.

    Args:
        open_: The metrics that block and are undecided.
        samples: Requests of the challenger in the step.
        min_samples: That the step asks for.
        age_s: How long the step has lasted.
        left_s: Until its deadline.

    Returns:
        Seconds from now, or None if that cannot be told; and a sentence if it is too late.
    """
    if not age_s:
        return None, ""
    waits: list[tuple[float, str, float]] = []
    if samples < min_samples:
        rate = samples / age_s
        wait_s = (min_samples - samples) / rate if rate else math.inf
        waits.append((wait_s, "the challenger's requests", min_samples - samples))
    for verdict in open_:
        rate = verdict.challenger_samples / age_s
        more = math.inf if verdict.more_samples is None else float(verdict.more_samples)
        waits.append((more / rate if rate else math.inf, verdict.metric, more))
    if not waits:
        return None, ""
    longest_s, name, more = max(waits)
    if longest_s <= left_s:
        return longest_s, ""
    if math.isinf(longest_s):
        when = f"{name} cannot be decided from what has been seen so far"
    else:
        when = f"{name} needs about {more:,.0f} more samples, which takes {_time(longest_s)}"
    return (
        None if math.isinf(longest_s) else longest_s,
        f"{when}; the step waits in {_time(left_s)}. {_HELP.get(name, _MORE_TRAFFIC)}",
    )


_MORE_TRAFFIC = "A larger weight, more traffic or a larger tolerance would help."
_HELP = {
    "accuracy": "More feedback would help, best in a shadow, where each label counts for both.",
    "latency": "A larger tolerance or weight, or more traffic, would help.",
    "error_rate": (
        "A larger weight or more traffic would help; callers that send X-Rollout-Key count once "
        "each."
    ),
}


def _time(seconds: float) -> str:
    for unit, length_s in (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s"
