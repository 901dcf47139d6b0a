"""
Compare what the two versions computed, in short windows in which both worked.

A time that a caller waits has queues in it, and the version with less traffic has the shorter one.
What is compared is the time that a version's inferences were computed, without the waiting. In each
window, at least a second long and with some inferences of both, the mean of one is held against the
mean of the other: whatever else the machine did in that second, it did to both.

Where that is the CPU time of the versions' processes, every window counts. Where it is a time that
Triton measured by the clock, it grows with what computes beside it, and that is not the same for
both: a version with few requests always computes beside the one with many. Then only the windows of
a canary count, while callers leave room or the weight is near one half. In a shadow with room the
mirror times both versions itself.

A canary's windows do not count where callers name themselves: each stays with one version, and may
send larger pictures.
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


# Between these weights, in percent, the two versions compute beside each other alike.
_EVEN = (40.0, 60.0)


class _Computed(NamedTuple):
    """What was computed for a version: inferences, seconds, and whether that is CPU time."""

    runs: int
    seconds: float
    by_cpu: bool


Reading = tuple[int, float, frozenset[int]]
"""Inferences, seconds, and the processes whose CPU time that is; none if it is by the clock."""
Readings = Mapping[tuple[str, str, int], Reading]
"""By replica, model and version, since the replica started."""
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
        champion = _since(before, self._readings, rollout.model, rollout.champion)
        challenger = _since(before, self._readings, rollout.model, rollout.challenger)
        if champion is None or challenger is None:
            # A process has been replaced: its time cannot be told.
            self._begun[rollout.id] = step, self._readings, busy
            return
        if min(champion.runs, challenger.runs) < _LEAST_RUNS:
            return  # it goes on until both have computed enough
        self._begun[rollout.id] = step, self._readings, busy
        counts = self._tally.counts(step)
        by_cpu = champion.by_cpu and challenger.by_cpu
        if _counts(rollout, by_cpu=by_cpu, busy=busy or was_busy, of_callers=counts.of_callers):
            counts.compute += _window(metric, champion, challenger)


def _counts(rollout: Rollout, *, by_cpu: bool, busy: bool, of_callers: bool) -> bool:
    """Whether a window compares like with like."""
    if rollout.current_stage.strategy is Strategy.SHADOW:
        return by_cpu
    if of_callers:
        return False
    return by_cpu or not busy or _EVEN[0] <= rollout.weight <= _EVEN[1]


def _window(metric: Metric, champion: _Computed, challenger: _Computed) -> Compute:
    limit_s = metric.limit_s(champion.seconds / champion.runs)
    return Compute(
        windows=1,
        slower=float(challenger.seconds / challenger.runs > limit_s),
        champion_s=champion.seconds,
        challenger_s=challenger.seconds,
        champion_runs=champion.runs,
        challenger_runs=challenger.runs,
    )


def _since(before: Readings, after: Readings, model: str, version: int) -> _Computed | None:
    """
    What all replicas have computed; one that has started again counts from its start.

    Returns:
        None where it cannot be told: a process was replaced.
    """
    runs, seconds, by_cpu = 0, 0.0, True
    for key, (runs_now, seconds_now, processes) in after.items():
        if key[1:] != (model, version) or key not in before:
            continue
        runs_then, seconds_then, processes_then = before[key]
        if processes != processes_then:
            return None
        if runs_then > runs_now:
            runs_then, seconds_then = 0, 0.0
        runs += runs_now - runs_then
        seconds += max(0.0, seconds_now - seconds_then)
        by_cpu = by_cpu and bool(processes)
    return _Computed(runs, seconds, by_cpu)
