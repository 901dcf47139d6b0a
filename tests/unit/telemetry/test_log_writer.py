"""Logs that nobody reads hold nobody up."""

import logging
import os
import threading
import time
from collections.abc import Iterator

import pytest

from gateway.telemetry.log_writer import LogWriter
from tests.eventually import eventually


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)


def _line(number: int, width: int = 500) -> logging.LogRecord:
    text = f"{number:06d} ".ljust(width, "x")
    return logging.LogRecord("t", logging.INFO, "", 0, text, None, None)


def _read_all(reading: int) -> list[str]:
    content = b""
    while piece := os.read(reading, 1 << 20):
        content += piece
    return content.decode().splitlines()


async def test_a_reader_who_stands_still_holds_nobody_up(pipe: tuple[int, int]) -> None:
    """Far more than a pipe holds: all is taken at once, what has no room is counted and told."""
    reading, writing = pipe
    writer = LogWriter(writing, room_bytes=100_000)
    root = logging.getLogger()
    root.addHandler(writer)
    try:
        began_s = time.monotonic()
        for number in range(2000):
            writer.emit(_line(number))
        assert time.monotonic() - began_s < 5.0
        assert writer.dropped > 1000
        began_s = time.monotonic()
        writer.flush()
        assert time.monotonic() - began_s < 5.0
        read: list[str] = []
        reader = threading.Thread(target=lambda: read.extend(_read_all(reading)))
        reader.start()
        await eventually(lambda: not writer._waiting_bytes and not writer._untold)
    finally:
        root.removeHandler(writer)
        os.close(writing)
    reader.join()
    kept = [int(line[:6]) for line in read[:-1]]
    assert kept == sorted(set(kept))
    assert len(kept) == 2000 - writer.dropped
    assert read[-1] == f"{writer.dropped} log lines were dropped"


def test_lines_come_in_order_and_whole(pipe: tuple[int, int]) -> None:
    """Two who write to one pipe do not write into each other's lines."""
    reading, writing = pipe
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.extend(_read_all(reading)))
    reader.start()
    writers = LogWriter(writing), LogWriter(os.dup(writing))
    for number in range(500):
        for offset, writer in enumerate(writers):
            writer.emit(_line(number * 2 + offset, width=300 + number))
    for writer in writers:
        writer.flush()
        os.close(writer._descriptor)
    reader.join()
    assert sorted(int(line[:6]) for line in read) == list(range(1000))
    assert {line[6:].strip(" x") for line in read} == {""}


def test_what_cannot_be_written_ends_nothing(pipe: tuple[int, int]) -> None:
    """A reader who is gone for good, and text that is no UTF-8: the next line is written anyway."""
    reading, writing = pipe
    gone_reading, gone_writing = os.pipe()
    os.close(gone_reading)
    gone = LogWriter(gone_writing)
    gone.emit(_line(1))
    gone.flush()
    assert not gone._waiting_bytes
    writer = LogWriter(writing)
    record = _line(2)
    record.msg = "\udc80"
    writer.emit(record)
    writer.flush()
    assert os.read(reading, 100) == b"\\udc80\n"
    os.close(gone_writing)
    os.close(writing)
