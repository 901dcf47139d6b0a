"""Log lines of what happens often and each time says the same: a line a second, with the number."""

import time
from collections import Counter
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)


class SampledLog:
    """
    Counts events, and logs their number at most once in `every_s` seconds.

    Args:
        event: The name of the log line.
        every_s: Least time between two lines.
        clock: Seconds, monotonic.
    """

    def __init__(
        self, event: str, *, every_s: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._event = event
        self._every_s = every_s
        self._clock = clock
        self._counts: Counter[str] = Counter()
        self._next_at_s = 0.0

    def note(self, code: str) -> None:
        """Count one event of a kind."""
        self._counts[code] += 1
        now_s = self._clock()
        if now_s >= self._next_at_s:
            self._next_at_s = now_s + self._every_s
            log.info(self._event, **self._counts)
            self._counts.clear()


REFUSALS = SampledLog("requests_refused")
"""Requests that were refused for lack of room, or because they were no valid HTTP."""
