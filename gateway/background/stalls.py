"""
How long our own event loop stood still while it waited for somebody else.

Whoever asks with a timeout hears "no answer in time" also when the answer came and it was itself
too busy to read it. Before somebody else is taken for dead, this is looked at.
"""

import asyncio
import contextlib
from collections.abc import Iterator

import structlog

log = structlog.get_logger(__name__)

_LOOK_EVERY_S = 0.05


class Stall:
    """
    What was seen during a block.

    Attributes:
        longest_s: The longest time for which the loop did not turn.
    """

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._wait()

    def explains(self, timeout_s: float) -> bool:
        """
        Whether a timeout of that length says more about us than about whom we waited for. One long
        stall does; a loop that is busy, but turns, would have heard an answer.
        """
        explains = self.longest_s > timeout_s / 2
        if explains:
            log.warning("event_loop_stalled", stalled_s=round(self.longest_s, 3))
        return explains

    def _wait(self) -> None:
        self._due_at_s = self._loop.time() + _LOOK_EVERY_S
        self._timer = self._loop.call_at(self._due_at_s, self._look)

    def _look(self) -> None:
        self.stop()
        self._wait()

    def stop(self) -> None:
        """Look for the last time."""
        self.longest_s = max(self.longest_s, self._loop.time() - self._due_at_s)
        self._timer.cancel()


@contextlib.contextmanager
def own_stall() -> Iterator[Stall]:
    """Watch the event loop for the length of a block."""
    stall = Stall()
    try:
        yield stall
    finally:
        stall.stop()
