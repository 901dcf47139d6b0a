"""
Count a caller once, however often it asks.

A caller that names itself stays with one version, and its requests resemble each other: its
pictures, its errors, its speed. Then requests are no independent observations, callers are. So a
caller counts only when its first `BLOCK` requests of the step are complete, each of them with a
weight of 1 / BLOCK, and never again in that step.

That keeps the bounds exact without knowing how alike a caller's requests are. The bet on a request
multiplies the wealth by a factor e whose mean is at most 1 under the null; with a weight of 1/m it
multiplies by e^(1/m). For m factors of one caller, dependent in any way, Hölder's inequality gives
E[(e1 · e2 · … · em)^(1/m)] ≤ (E[e1] · … · E[em])^(1/m) ≤ 1, and callers are independent.

A caller that meets several gateways is counted by each; `observations.merged` divides by their
number, which is valid for the same reason.
"""

from collections import Counter
from dataclasses import dataclass, field

from gateway.rollouts.statistics.histogram import Histogram
from gateway.rollouts.statistics.observations import Arm

BLOCK = 10
# Callers that one step counts; those that come after so many are not counted.
MOST_CALLERS = 100_000


@dataclass(slots=True)
class _Part:
    """What one caller has shown so far, until it is complete."""

    requests: int = 0
    errors: int = 0
    buckets: list[int] = field(default_factory=list)
    labels: int = 0
    wrong: int = 0
    complete: bool = False
    labels_complete: bool = False


@dataclass(slots=True)
class Blocks:
    """The callers of one version in one step. `requests` counts all that they sent."""

    requests: int = 0
    _parts: dict[str, _Part] = field(default_factory=dict)
    _complete: int = 0
    _errors: int = 0
    _latencies: Counter[int] = field(default_factory=Counter)
    _labels_complete: int = 0
    _wrong: int = 0

    def request(self, caller: str, *, failed: bool, bucket: int | None = None) -> None:
        """Count a request of a caller; the latency's bucket if it was answered."""
        self.requests += 1
        part = self._part(caller)
        if part is None or part.complete:
            return
        part.requests += 1
        part.errors += failed
        if bucket is not None:
            part.buckets.append(bucket)
        if part.requests == BLOCK:
            part.complete = True
            self._complete += 1
            self._errors += part.errors
            self._latencies.update(part.buckets)
            part.buckets.clear()

    def label(self, caller: str, *, wrong: bool) -> None:
        """Count feedback on an answer to a caller."""
        part = self._part(caller)
        if part is None or part.labels_complete:
            return
        part.labels += 1
        part.wrong += wrong
        if part.labels == BLOCK:
            part.labels_complete = True
            self._labels_complete += 1
            self._wrong += part.wrong

    def freeze(self) -> Arm:
        """Give the complete callers: each weighs 1."""
        return Arm(
            requests=self._complete,
            errors=self._errors / BLOCK,
            latencies=Histogram(
                {bucket: count / BLOCK for bucket, count in self._latencies.items()}
            ),
            labelled=self._labels_complete,
            wrong=self._wrong / BLOCK,
        )

    def _part(self, caller: str) -> _Part | None:
        part = self._parts.get(caller)
        if part is None and len(self._parts) < MOST_CALLERS:
            part = self._parts[caller] = _Part()
        return part
