"""
The recorder: counts every request in memory, by minute, endpoint, model, version and status.

A cell grows until its minute is over. Writing it again and again with its whole content, under the
name of this process, is what makes a write repeatable: a flush whose outcome is not known is simply
made once more, and two gateways never touch each other's rows.

Only names that are registered become labels; anything else a caller makes up is counted under "".
While the store is away, cells are kept up to a limit; then the oldest are given up, and counted.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.telemetry.observation import Observation
from gateway.telemetry.sketches import LatencySketch, pack

MINUTE_S = 60
MAX_CATEGORIES = 2000
"""Categories told apart in one cell; more are counted together as "other"."""

# In a row they find the code in the processor's caches, which one request between two images does
# not; so few that nobody waits for it.
_COUNTED_AT_ONCE = 64


class Key(NamedTuple):
    """What one cell counts. `start_s` is the beginning of its minute, UTC in seconds."""

    start_s: int
    endpoint: str
    model: str
    version: int
    status: int


@dataclass(slots=True)
class Cell:
    """The counts of one cell, since the beginning of its minute."""

    requests: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    categories: Counter[str] = field(default_factory=Counter)
    sketches: dict[str, LatencySketch] = field(default_factory=dict)
    written: int = 0

    def add(self, seen: Observation) -> None:
        """Count one request."""
        self.requests += 1
        self.bytes_in += seen.bytes_in
        self.bytes_out += seen.bytes_out
        if seen.code:
            self.errors[seen.code] += 1
        if seen.category:
            known = seen.category in self.categories or len(self.categories) < MAX_CATEGORIES
            self.categories[seen.category if known else "other"] += 1
        self._time("total", seen.total_s)
        for stage, duration_s in seen.stages_s.items():
            self._time(stage, duration_s)

    def _time(self, name: str, duration_s: float) -> None:
        sketch = self.sketches.get(name)
        if sketch is None:
            sketch = self.sketches[name] = LatencySketch()
        sketch.add(duration_s)

    def packed_sketches(self) -> bytes:
        """Return every stage's sketch, in the form that is stored."""
        return pack(self.sketches)


@dataclass(slots=True)
class Losses:
    """What was given up because it could not be stored, since the start."""

    rows: int = 0
    requests: int = 0


class Recorder:
    """Counts requests. To be used from one thread, that of the event loop."""

    def __init__(
        self,
        known: Callable[[str, int], tuple[str, int]],
        *,
        max_cells: int,
        clock: Callable[[], float] = time.time,
        then: Callable[[Observation, str, int], None] = lambda *_: None,
    ) -> None:
        """
        Make an empty recorder.

        Args:
            known: Maps a model's name and a version to labels: "" and 0 for what is not registered.
            max_cells: How many cells are kept while they cannot be stored.
            clock: UTC in seconds.
            then: Told each request, and the labels that it was counted under.
        """
        self._known = known
        self._max_cells = max_cells
        self._clock = clock
        self._then = then
        self._noted: list[tuple[int, str, int, Observation]] = []
        self._cells: dict[Key, Cell] = {}
        self.lost = Losses()

    def record(self, seen: Observation) -> None:
        """Take note of one answered request. It is counted when somebody looks, or soon."""
        self._noted.append((int(self._clock()), *self._known(seen.model, seen.version), seen))
        if len(self._noted) >= _COUNTED_AT_ONCE:
            self.settle()

    def settle(self) -> None:
        """Count what was noted."""
        noted, self._noted = self._noted, []
        for at_s, model, version, seen in noted:
            start_s = at_s // MINUTE_S * MINUTE_S
            key = Key(start_s, seen.endpoint, model, version, seen.status)
            cell = self._cells.get(key)
            if cell is None:
                if len(self._cells) >= self._max_cells:
                    self._give_up_oldest()
                cell = self._cells[key] = Cell()
            cell.add(seen)
            self._then(seen, model, version)

    def unwritten(self) -> list[tuple[Key, Cell]]:
        """List the cells that hold more than was written of them."""
        self.settle()
        return [(key, cell) for key, cell in self._cells.items() if cell.requests > cell.written]

    def forget_written(self) -> None:
        """Drop the cells of past minutes that are written in full."""
        # A cell that was dropped too early would be made anew, and replace what is stored of it.
        self.settle()
        now_s = self._clock()
        done = [
            key
            for key, cell in self._cells.items()
            if cell.requests == cell.written and key.start_s + MINUTE_S <= now_s
        ]
        for key in done:
            del self._cells[key]

    def lose(self, requests: int) -> None:
        """Count requests of one cell that can be stored no more."""
        self.lost.rows += 1
        self.lost.requests += requests

    def _give_up_oldest(self) -> None:
        # They were made in the order of their minutes. One that still counts is kept in any case:
        # made anew it would replace what is stored of it.
        oldest = next(iter(self._cells))
        if oldest.start_s + MINUTE_S > self._clock():
            return
        cell = self._cells.pop(oldest)
        if cell.requests > cell.written:
            self.lose(cell.requests - cell.written)
