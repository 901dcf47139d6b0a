"""
Compare what Triton says of its own computing, in short windows in which both versions worked.

A time that a caller waits has queues in it, and the version with less traffic has the shorter one.
Triton counts for each version how long its inferences were computed, without the waiting. In each
window, at least a second long and with some inferences of both, the mean of one is held against the
mean of the other: whatever else the machine did in that second, it did to both.

A shadow's windows count only where callers use the machine up: a caller that is alone gets all of
it, its copy does not. Where there is room, the mirror times both versions itself. A canary's do not
count where callers name themselves: each stays with one version, and may send larger pictures.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from gateway.rollouts.live.tally import Tally
from gateway.rollouts.state.rollout import Rollout
from gateway.rollouts.state.traffic import StepId
from gateway.rollouts.statistics.metrics import Metric, MetricName, Strategy
from gateway.rollouts.statistics.observations import Compute

_WINDOW_S = 1.0
_LEAST_RUNS = 5


class Computed(NamedTuple):
    """What was computed for a version: inferences, and seconds."""

    runs: int
    seconds: float


Readings = Mapping[tuple[str, str, int], tuple[int, float]]
"""By replica, model and version: inferences and seconds since the replica started."""
Read = Callable[[], Awaitable[Readings]]


class ComputeWatch:
    """The windows of all rollouts that this gateway judges."""

    def __init__(self, tally: Tally, *, now: Callable[[], float] = time.monotonic) -> None:
        self._tally = tally
        self._now = now
        self._begun: dict[str, tuple[StepId, Readings, bool]] = {}
        self._read_at_s = -_WINDOW_S
        self._readings: Readings = {}

    async def look(self, rollout: Rollout, read: Read, *, busy: bool) -> None:
        """
        End a window of a rollout if it is time, and begin the next.

        Args:
            rollout: One that is being judged.
            read: Asks Triton.
            busy: Whether callers use the machine up.
        """
        metric = next((m for m in rollout.plan.metrics if m.name is MetricName.COMPUTE), None)
        if metric is None:
            return
        if self._now() - self._read_at_s >= _WINDOW_S:
            self._read_at_s = self._now()
            self._readings = await read()
        step = StepId(rollout.id, rollout.stage, rollout.step)
        begun = self._begun.get(rollout.id)
        if begun is None or begun[0] != step:
            self._begun[rollout.id] = step, self._readings, busy
            return
        _, before, was_busy = begun
        if before is self._readings:
            return
        window = _window(rollout, metric, before, self._readings)
        if window is None:
            return  # it goes on until both have computed enough
        self._begun[rollout.id] = step, self._readings, busy
        counts = self._tally.counts(step)
        shadow = rollout.current_stage.strategy is Strategy.SHADOW
        if (busy and was_busy) if shadow else not counts.of_callers:
            counts.compute += window


def _window(rollout: Rollout, metric: Metric, before: Readings, after: Readings) -> Compute | None:
    champion = _since(before, after, rollout.model, rollout.champion)
    challenger = _since(before, after, rollout.model, rollout.challenger)
    if min(champion.runs, challenger.runs) < _LEAST_RUNS:
        return None
    limit_s = metric.limit_s(champion.seconds / champion.runs)
    return Compute(
        windows=1,
        slower=float(challenger.seconds / challenger.runs > limit_s),
        champion_s=champion.seconds,
        challenger_s=challenger.seconds,
        champion_runs=champion.runs,
        challenger_runs=challenger.runs,
    )


def _since(before: Readings, after: Readings, model: str, version: int) -> Computed:
    """What all replicas have computed; one that has started again counts from its start."""
    runs, seconds = 0, 0.0
    for key, (runs_now, seconds_now) in after.items():
        if key[1:] != (model, version) or key not in before:
            continue
        runs_then, seconds_then = before[key]
        if runs_then > runs_now:
            runs_then, seconds_then = 0, 0.0
        runs += runs_now - runs_then
        seconds += max(0.0, seconds_now - seconds_then)
    return Computed(runs, seconds)
