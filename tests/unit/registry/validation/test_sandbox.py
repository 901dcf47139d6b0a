"""The bounds of the validating process: each is tried out in a process that sets them on itself."""

import subprocess
import sys
import textwrap

import pytest

_CONFINE = """
from gateway.registry.validation.sandbox import Limits, confine
confined = confine(Limits(memory_bytes=1 << 30, cpu_s=1, file_bytes=1 << 20, open_files=16))
assert confined
"""


def _confined(code: str) -> "subprocess.CompletedProcess[str]":
    program = _CONFINE + textwrap.dedent(code)
    return subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import socket; socket.socket()", "PermissionError"),
        ("import socket; socket.socketpair()", "PermissionError"),
        ("import os; os.execv('/bin/true', ['true'])", "PermissionError"),
        ("import os; os.kill(os.getppid(), 0)", "PermissionError"),
        ("bytearray(2 << 30)", "MemoryError"),
        (
            (
                "import tempfile; file = tempfile.TemporaryFile('wb', 0)\n"
                "assert file.write(bytes(2 << 20)) == 1 << 20"
            ),
            "",
        ),
        ("files = [open('/dev/zero') for _ in range(20)]", "Too many open files"),
    ],
    ids=["socket", "socketpair", "exec", "kill", "memory", "file-size", "files"],
)
def test_a_bound_holds(code: str, error: str) -> None:
    """No network, no programs, no signals to others, no more memory or files than it may have."""
    done = _confined(code)
    if error:
        assert done.returncode != 0
        assert error in done.stderr
    else:
        assert done.returncode == 0, done.stderr


def test_processor_time_is_bounded() -> None:
    """A process that never ends is ended by the kernel."""
    assert _confined("while True: pass").returncode < 0
