import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from gateway.triton.embedded.server_log import (
    LogRecord,
    ServerLog,
    clean_reason,
    escape_control,
    parse_record,
)

LINE = 'E1123 02:27:24.070358 77 model_lifecycle.cc:123] "version 7 of \\"m\\"\\nis gone"'


def fed(path: Path, *lines: str, pid: int = 77, **bounds: int) -> tuple[ServerLog, list[LogRecord]]:
    """Return a log that has read these lines to the end, and what it told."""
    told: list[LogRecord] = []
    log = ServerLog(path, told.append, **bounds)
    writing, start = log.open_pipe()
    start(pid)
    with os.fdopen(writing, "w") as pipe:
        pipe.writelines(f"{line}\n" for line in lines)
    log.close()
    return log, told


def test_parses_a_record() -> None:
    """Level, source and the unescaped message of a record of the server."""
    record = parse_record(LINE, pid=77)
    assert record is not None
    assert (record.level, record.source) == ("error", "model_lifecycle.cc:123")
    assert record.message == 'version 7 of "m"\nis gone'


@pytest.mark.parametrize(
    "line",
    [
        LINE.replace(" 77 ", " 78 "),
        f" {LINE}",
        f"2026 [E:onnxruntime] {LINE}",
        LINE.removesuffix('"'),
        "I1123 02:27:00.830175 77 server.cc:604] ",
        "",
    ],
)
def test_takes_nothing_else_for_a_record(line: str) -> None:
    """A line of another process, in another shape, or within another message is no record."""
    assert parse_record(line, pid=77) is None


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain ü", "plain ü"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\rb\x00", "a\\x0db\\x00"),
        ("a\u2028b", "a\\u2028b"),
        ("a\U000e0001b", "a\\U000e0001b"),
        ("tab\tstays", "tab\tstays"),
    ],
)
def test_escapes_control_characters(text: str, escaped: str) -> None:
    """What could move a terminal's cursor or start a line is written as an escape."""
    assert escape_control(text) == escaped


def test_tells_and_remembers(tmp_path: Path) -> None:
    """Records are told and remembered; known noise is only in the file."""
    noise = 'E1123 02:27:24.070358 77 server.cc:241] "CudaDriverHelper has not been initialized."'
    log, told = fed(tmp_path / "log", noise, LINE, "no record")
    assert [record.level for record in told] == ["error"]
    assert log.records("error") == told
    assert (tmp_path / "log").read_text().splitlines() == [noise, LINE, "no record"]


def test_file_is_bounded(tmp_path: Path) -> None:
    """However much the server writes, a fixed number of bounded files is kept."""
    fed(tmp_path / "log", *(f"{n:04d} " + "x" * 95 for n in range(2000)), file_bytes=5000, files=3)
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == ["log", "log.1", "log.2"]
    assert all(path.stat().st_size <= 5000 for path in files)
    assert (tmp_path / "log").read_text().splitlines()[-1].startswith("1999")


def test_a_full_disk_does_not_stop_the_reading() -> None:
    """Where the file cannot be written, the pipe is still read and records are still told."""
    log, told = fed(Path("/dev/full"), *[LINE] * 1000)
    assert len(told) == 1000
    assert log.records()


def test_the_writer_never_waits_for_us(tmp_path: Path) -> None:
    """A process that writes much more than a pipe holds ends, while this thread does nothing."""
    # Other tests' servers may have a reader of their own.
    before = set(threading.enumerate())
    log = ServerLog(tmp_path / "log", lambda _: None)
    writing, start = log.open_pipe()
    script = "import sys\nfor n in range(20000): print('y' * 100)"
    process = subprocess.Popen(["python3", "-c", script], stdout=writing)
    os.close(writing)
    start(process.pid)
    assert process.wait(timeout=20) == 0
    log.close()
    assert set(threading.enumerate()) <= before


def test_last_errors_are_of_this_start(tmp_path: Path) -> None:
    """Errors of an earlier server do not explain the end of a later one."""
    log, _ = fed(tmp_path / "log", LINE)
    assert log.last_errors() == 'version 7 of "m" is gone'
    assert log.last_errors(since=time.monotonic()) == ""


def test_reason_without_traceback() -> None:
    """A reason for people has no positions in our files and no line breaks."""
    message = (
        "failed to load 'm' version 3: Internal: ConfigMismatch: output y\nis [8]\n\nAt:\n"
        "  /srv/model.py(14): initialize\n"
    )
    assert clean_reason(message) == "failed to load 'm' version 3: output y is [8]"
