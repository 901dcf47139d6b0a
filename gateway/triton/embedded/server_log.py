"""
The server's output: kept on disk within bounds, parsed, and remembered for a while in memory.

A thread reads the pipe, so the server never blocks on a full pipe while our event loop is busy.
Each line goes to a rotated file with its control characters escaped. Lines that are Triton's own
log records are also parsed into a ring: its last errors say why a server ended.

Not every line is Triton's: models' names and onnxruntime's messages pass through, and may hold line
breaks made to look like a record. Triton quotes and escapes its messages, and every record carries
the pid of the server, so only a line in that shape and with that pid counts.

Source: triton-inference-server/common, `src/logging.cc`, release 24.10 (default log format).
"""

import contextlib
import logging
import logging.handlers
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Level = Literal["info", "warning", "error"]
LEVELS: dict[str, Level] = {"I": "info", "W": "warning", "E": "error", "F": "error"}
RECORD = re.compile(
    r"(?P<level>[IWEF])\d{4} \d\d:\d\d:\d\d\.\d{6} (?P<pid>\d+) (?P<source>[\w.]+:\d+)\] "
    r"\"(?P<message>.*)\"\s*"
)
# What Triton says on every load with a configuration of ours, or at every start without a GPU.
NOISE = (
    "Failed to set config modification time",
    "Unable to allocate pinned system memory",
    "CudaDriverHelper has not been initialized",
    "DCGM unable to start",
    "ERROR: Failed to create instance",  # told again, with the model's name, by the next record
)
RING_RECORDS = 1000
LONGEST_LINE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class LogRecord:
    """
    One record of Triton's log.

    Attributes:
        level: "fatal" counts as "error".
        source: Triton's source file and line.
        message: Unescaped; may hold several lines.
        heard: When it was read, in monotonic seconds.
    """

    level: Level
    source: str
    message: str
    heard: float


def parse_record(line: str, *, pid: int) -> LogRecord | None:
    """Return the record in `line`, or None where it is not one of the server `pid`."""
    match = RECORD.fullmatch(line)
    if match is None or int(match["pid"]) != pid:
        return None
    message = _unescape(match["message"])
    return LogRecord(LEVELS[match["level"]], match["source"], message, time.monotonic())


def escape_control(text: str) -> str:
    r"""Return `text` with every character that is not printable as an escape: ESC as \x1b."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\t" else _escaped(char) for char in text)


class ServerLog:
    """
    The log of one data directory, over all restarts of its server.

    Args:
        path: The file; its predecessors are path.1, path.2, …
        on_record: Called in the reading thread with each warning and error.
        file_bytes: Size at which the file is rotated.
        files: How many files are kept.
    """

    def __init__(
        self,
        path: Path,
        on_record: Callable[[LogRecord], None],
        *,
        file_bytes: int = 10_000_000,
        files: int = 3,
    ) -> None:
        self._file = _BoundedFile(path, maxBytes=file_bytes, backupCount=files - 1)
        self._on_record = on_record
        self._ring: deque[LogRecord] = deque(maxlen=RING_RECORDS)
        self._readers: list[threading.Thread] = []

    def open_pipe(self) -> tuple[int, Callable[[int], None]]:
        """
        Open a pipe for one server.

        Returns:
            Its writing end, which the caller closes after the spawn, and what starts to read, once
            the server's pid is known.
        """
        reading, writing = os.pipe()

        def start(pid: int) -> None:
            reader = threading.Thread(
                target=self._read, args=(reading, pid), name="triton-log", daemon=True
            )
            self._readers.append(reader)
            reader.start()

        return writing, start

    def records(self, level: Level | None = None) -> list[LogRecord]:
        """Return the remembered records, oldest first."""
        return [record for record in tuple(self._ring) if level in (None, record.level)]

    def last_errors(self, *, since: float = 0.0, count: int = 3) -> str:
        """Return the last errors since a monotonic time in one line, for a message."""
        errors = [record for record in self.records("error") if record.heard >= since]
        return "; ".join(clean_reason(record.message) for record in errors[-count:])

    def drain(self, timeout_s: float = 2.0) -> None:
        """Wait until the pipes of ended servers are read to their end."""
        for reader in self._readers:
            reader.join(timeout_s)
        self._readers = [reader for reader in self._readers if reader.is_alive()]

    def close(self) -> None:
        """Read what is left and close the file."""
        self.drain()
        self._file.close()

    def _read(self, descriptor: int, pid: int) -> None:
        with open(descriptor, "rb", buffering=LONGEST_LINE_BYTES) as pipe:
            while line := pipe.readline(LONGEST_LINE_BYTES):
                self._take(line.decode("utf-8", "replace").rstrip("\r\n"), pid)

    def _take(self, line: str, pid: int) -> None:
        self._file.write(escape_control(line))
        record = parse_record(line, pid=pid)
        if record is None or record.message.startswith(NOISE):
            return
        self._ring.append(record)
        if record.level != "info":
            self._on_record(record)


class _BoundedFile(logging.handlers.RotatingFileHandler):
    """The rotation of the standard library, without its records."""

    def write(self, line: str) -> None:
        self.handle(logging.makeLogRecord({"msg": line}))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the base class's name
        """Drop the line: a full disk must stop neither the reading nor, through it, the server."""
        del record

    def close(self) -> None:
        """Close the file, as far as a full disk lets us."""
        with contextlib.suppress(OSError):
            super().close()


def clean_reason(message: str) -> str:
    r"""
    Return Triton's message without what is no reason: traceback, source positions, line breaks.

    >>> clean_reason("Internal: ValueError: too big\n\nAt:\n  /srv/model.py(14): initialize\n")
    'too big'
    """
    head = message.partition("\n\nAt:\n")[0]
    head = re.sub(r"^(ERROR: )?(Failed to create instance: )?", "", head)
    head = re.sub(r"\b(Internal|Invalid argument|\w+(?:Error|Exception|Mismatch)): ", "", head)
    return " ".join(escape_control(head.replace("\n", " ")).split())


def _unescape(message: str) -> str:
    try:
        # Triton escapes as JSON does: \n, \t, \", \\, \u001b
        return re.sub(r"\\(u[0-9a-fA-F]{4}|.)", _unescape_one, message)
    except ValueError:
        return message


def _unescape_one(match: re.Match[str]) -> str:
    escape = match[1]
    if escape.startswith("u") and len(escape) == 5:
        return chr(int(escape[1:], 16))
    return {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}.get(escape, escape)


def _escaped(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
