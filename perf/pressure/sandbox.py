"""What a process gets through that is confined as a validation is."""

import subprocess
import sys
import tempfile
from pathlib import Path

_ATTACKS = {
    "a signal by tgkill": "assert libc.syscall(234, parent, parent, 0) == 0",
    "a signal by pidfd": "signal.pidfd_send_signal(os.pidfd_open(parent), 0)",
    "opening the parent's memory": "open(f'/proc/{parent}/mem', 'r+b')",
    "reading a file of the user": "secret.read_text()",
    "overwriting a file of the user": "secret.write_text('taken')",
    "listing the home folder": "os.listdir(Path.home())",
    "changing a file's mode": "os.chmod(secret, 0o666)",
    "a fork": "os.fork() or os._exit(0)",
    "a session of its own": "os.setsid()",
    "a socket": "import socket; socket.socket()",
    "a program": "os.execv('/bin/true', ['true'])",
}
_PROGRAM = """
import ctypes, os, signal, sys
from pathlib import Path
from gateway.registry.validation.sandbox import SandboxLimits, confine
libc = ctypes.CDLL(None, use_errno=True)
parent, own, secret = os.getppid(), Path(sys.argv[1]), Path(sys.argv[2])
limits = SandboxLimits(memory_bytes=1 << 30, cpu_s=5, file_bytes=1 << 20)
try:
    confine(limits, reading=[], writing=own)
except TypeError:
    confine(limits)
"""


def measure() -> dict[str, object]:
    """Try each attack in a process of its own: what went through?"""
    with tempfile.TemporaryDirectory() as place:
        own, secret = Path(place, "own"), Path(place, "secret")
        own.mkdir()
        return {name: _goes_through(code, own, secret) for name, code in _ATTACKS.items()}


def _goes_through(code: str, own: Path, secret: Path) -> bool:
    secret.write_text("of the user")
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"{_PROGRAM}{code}\nprint('through')", str(own), str(secret)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode == 0 and (code.startswith("os.execv") or "through" in done.stdout)
