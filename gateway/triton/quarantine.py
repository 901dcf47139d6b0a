"""
Which version keeps killing the process that runs it.

A version gets a strike when its process, or Triton with it, dies while it is loading or working. A
right answer wipes its strikes out: a model that crashes on one image in a thousand, or a process
that somebody killed, is repaired again and again, but a version that dies three times with no
answer in between has shown that it cannot live here.
"""

from collections import Counter
from collections.abc import Iterable

from gateway.triton.replicas import Served

STRIKES_TO_QUARANTINE = 3


class Strikes:
    """Counts deaths in a row for each version. No I/O, no clock."""

    def __init__(self) -> None:
        self._counts: Counter[Served] = Counter()

    def died(self, suspects: Iterable[Served]) -> list[Served]:
        """Count a death against each suspect; return those that have reached the limit."""
        convicted = []
        for served in suspects:
            self._counts[served] += 1
            if self._counts[served] >= STRIKES_TO_QUARANTINE:
                convicted.append(served)
                del self._counts[served]
        return convicted

    def answered(self, served: Served) -> None:
        """Wipe a version's strikes out: it answered."""
        self._counts.pop(served, None)
