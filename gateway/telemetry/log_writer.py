"""
Writes log lines from a thread of its own.

Whoever reads a gateway's output can stand still: a pipe that nobody empties, a terminal that is
paused, a slow disk. Then a write waits, and whoever waits in the event loop serves nobody. So
records become lines where they are made, and a thread writes them. What finds no room is dropped
and counted; once all that waited is written, the thread says how many.
"""

import contextlib
import logging
import os
import select
import threading
from collections import deque

_ROOM_BYTES = 4 * 1024 * 1024
_LAST_WORDS_S = 1.0


class LogWriter(logging.Handler):
    """
    Writes to a file descriptor, without ever waiting for it.

    Args:
        descriptor: It stays open; nobody else should write to it through a buffer.
        room_bytes: So much may wait to be written.

    Attributes:
        dropped: Lines that found no room, since the start.
    """

    def __init__(self, descriptor: int, *, room_bytes: int = _ROOM_BYTES) -> None:
        super().__init__()
        self.dropped = 0
        self._descriptor = descriptor
        self._room_bytes = room_bytes
        self._lines: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._untold = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._write_all, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Leave one line to the thread."""
        try:
            line = (self.format(record) + "\n").encode(errors="backslashreplace")
        except Exception:  # noqa: BLE001 - the way of logging: a record that cannot be shown ends nothing
            self.handleError(record)
            return
        with self._changed:
            if self._waiting_bytes + len(line) > self._room_bytes:
                self.dropped += 1
                self._untold += 1
                return
            self._lines.append(line)
            self._waiting_bytes += len(line)
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until all is written, but not for long."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting_bytes, timeout=_LAST_WORDS_S)

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                lines = self._next()
            self._write(lines)
            with self._changed:
                self._waiting_bytes -= len(lines)
                untold = 0 if self._lines else self._untold
                self._untold -= untold
                self._changed.notify_all()
            if untold:
                logging.getLogger(__name__).warning("%d log lines were dropped", untold)

    def _next(self) -> bytes:
        """Take whole lines, as many as a pipe takes in one piece: workers share it."""
        taken = [self._lines.popleft()]
        size_bytes = len(taken[0])
        while self._lines and size_bytes + len(self._lines[0]) <= select.PIPE_BUF:
            taken.append(self._lines.popleft())
            size_bytes += len(taken[-1])
        return b"".join(taken)

    def _write(self, content: bytes) -> None:
        left = memoryview(content)
        # A reader who is gone for good is nobody's trouble.
        with contextlib.suppress(OSError):
            while left:
                try:
                    left = left[os.write(self._descriptor, left) :]
                except BlockingIOError:
                    # Whoever shares the descriptor made it so.
                    select.select((), (self._descriptor,), (), 1.0)


def dropped_lines() -> int:
    """Tell how many lines this process has dropped since its start."""
    return sum(h.dropped for h in logging.getLogger().handlers if isinstance(h, LogWriter))
