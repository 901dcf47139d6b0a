import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.triton.embedded.stubs import (
    StubWatch,
    describe_wait_status,
    process_state,
)
from gateway.triton.instances import cpu_time_s


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """Yield a process that waits for its input."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as waiting:
        yield waiting
        waiting.kill()


def announce(directory: Path, pid: int) -> Path:
    presence = directory / str(pid)
    presence.write_text(json.dumps({"model": "m", "version": 2, "instance": "m_0_0"}))
    return presence


def await_state(pid: int, states: str) -> None:
    while process_state(pid)[0] not in states:
        os.sched_yield()


def test_a_living_stub_is_no_news(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    """Nothing is told of a stub that runs, and its presence stays."""
    presence = announce(tmp_path, process.pid)
    watch = StubWatch(tmp_path)
    assert watch.look(0) == watch.look(100) == []
    assert presence.exists()


def test_a_killed_stub_is_told_once(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    """A zombie with a presence file is a crash; how it ended is told, and told once."""
    announce(tmp_path, process.pid)
    process.send_signal(signal.SIGSEGV)
    await_state(process.pid, "Z")
    watch = StubWatch(tmp_path)
    (lost,) = watch.look(0)
    assert (lost.stub.model, lost.stub.version) == ("m", 2)
    assert "killed by SIGSEGV" in lost.detail
    assert watch.look(1) == []


def test_a_vanished_stub_is_told(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    """A presence file without a process is a crash, too."""
    announce(tmp_path, process.pid)
    process.kill()
    process.wait()
    (lost,) = StubWatch(tmp_path).look(0)
    assert lost.stub.pid == process.pid


def test_an_unloaded_stub_is_not_told(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    """A stub that took its presence away before it left was unloaded."""
    presence = announce(tmp_path, process.pid)
    watch = StubWatch(tmp_path)
    assert watch.look(0) == []
    presence.unlink()
    process.kill()
    process.wait()
    assert watch.look(1) == []


def test_a_halted_stub_is_killed(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    """A stub may be halted for a moment; then it is killed, never let go on."""
    announce(tmp_path, process.pid)
    process.send_signal(signal.SIGSTOP)
    await_state(process.pid, "T")
    watch = StubWatch(tmp_path, halted_s=0.5)
    assert watch.look(10.0) == watch.look(10.4) == []
    (lost,) = watch.look(10.5)
    assert "halted for 0.5 s" in lost.detail
    assert process.wait(timeout=5) == -signal.SIGKILL


def test_a_stub_that_goes_on_is_forgiven(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    """The time halted counts from the last halt."""
    announce(tmp_path, process.pid)
    watch = StubWatch(tmp_path, halted_s=0.5)
    process.send_signal(signal.SIGSTOP)
    await_state(process.pid, "T")
    assert watch.look(10.0) == []
    process.send_signal(signal.SIGCONT)
    await_state(process.pid, "SR")
    assert watch.look(10.2) == []
    process.send_signal(signal.SIGSTOP)
    await_state(process.pid, "T")
    assert watch.look(10.6) == []


def test_a_stub_that_was_replaced_and_stays_is_ended(
    tmp_path: Path, process: subprocess.Popen[bytes]
) -> None:
    """It has a while to finish what it was asked; it is not told as lost; its successor stays."""
    presence = announce(tmp_path, process.pid)
    os.utime(presence, (1, 1))
    successor = announce(tmp_path, os.getpid())
    watch = StubWatch(tmp_path, replaced_s=60)
    assert watch.look(0) == []
    assert watch.end_replaced(0) == watch.end_replaced(59.9) == []
    (ended,) = watch.end_replaced(60)
    assert ended.pid == process.pid
    assert process.wait(timeout=5) == -signal.SIGKILL
    assert watch.look(61) == []
    assert watch.end_replaced(200) == []
    assert successor.exists()


def test_drafts_are_no_presence(tmp_path: Path) -> None:
    """A file that is being written is not read."""
    (tmp_path / "12.tmp").write_text("{")
    assert StubWatch(tmp_path).look(0) == []


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (9, "killed by SIGKILL"),
        (37, "killed by signal 37"),
        (139, "killed by SIGSEGV"),
        (256, "exit status 1"),
    ],
)
def test_describes_a_wait_status(status: int, said: str) -> None:
    """Signals by name, with or without a core; exit statuses by number."""
    assert describe_wait_status(status) == said


def test_the_cpu_time_of_a_process_is_its_own() -> None:
    """It grows with what the process computes and not with what it waits; a dead one has none."""
    code = "import sys, time\nsum(range(5_000_000))\nprint('done', flush=True)\nsys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        used_s = cpu_time_s(process.pid)
        waited_s = cpu_time_s(process.pid) - used_s
        process.communicate()
    assert used_s > 0.01
    assert waited_s < used_s / 2
    with pytest.raises(ProcessLookupError):
        cpu_time_s(process.pid)
