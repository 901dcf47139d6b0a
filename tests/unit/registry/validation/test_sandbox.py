"""The bounds of the validating process: each is attacked by a process that sets them on itself."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from gateway.registry.validation.landlock import landlock_version

_CONFINE = """
import ctypes, os, signal, sys
from pathlib import Path
from gateway.registry.validation.sandbox import SandboxLimits, confine
libc = ctypes.CDLL(None, use_errno=True)
parent, folder, secret = os.getppid(), Path(sys.argv[1]), Path(sys.argv[2])

def refused(*call, error=1):
    assert libc.syscall(*call) == -1, f"system call {call} went through"
    assert ctypes.get_errno() == error, (call, ctypes.get_errno())

limits = SandboxLimits(memory_bytes=1 << 30, cpu_s=1, file_bytes=1 << 20, open_files=16)
confined = confine(limits, reading=[], writing=folder)
assert confined.calls
"""
_OF_X86 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86-64")
_LANDLOCKED = pytest.mark.skipif(not landlock_version(), reason="the kernel has no Landlock")


def _confined(code: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    secret = folder / "secret"
    secret.write_text("of the user", encoding="ascii")
    own = folder / "own"
    own.mkdir()
    return subprocess.run(
        [sys.executable, "-I", "-c", _CONFINE + textwrap.dedent(code), str(own), str(secret)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TMPDIR": str(own)},
    )


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import socket; socket.socket()", "PermissionError"),
        ("import socket; socket.socketpair()", "PermissionError"),
        ("os.execv('/bin/true', ['true'])", "PermissionError"),
        ("os.kill(parent, 0)", "PermissionError"),
        ("signal.pidfd_send_signal(os.pidfd_open(parent), 0)", "PermissionError"),
        ("os.fork()", "PermissionError"),
        ("os.posix_spawn('/bin/true', ['true'], {})", "PermissionError"),
        ("os.setsid()", "PermissionError"),
        ("os.setpgid(0, 0)", "PermissionError"),
        ("(folder / 'mine').write_text(''); os.chmod(folder / 'mine', 0o777)", "PermissionError"),
        ("import resource; resource.prlimit(parent, resource.RLIMIT_CPU, (1, 1))", "Permission"),
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
)
def test_a_bound_holds(code: str, error: str, tmp_path: Path) -> None:
    """No network, programs, processes or signals to others; memory and files are bounded."""
    done = _confined(code, tmp_path)
    if error:
        assert done.returncode != 0
        assert error in done.stderr
    else:
        assert done.returncode == 0, done.stderr


@_OF_X86
@pytest.mark.parametrize(
    "call",
    [
        "refused(234, parent, parent, 0)",  # tgkill
        "refused(200, parent, 0)",  # tkill
        "refused(129, parent, 0, 0)",  # rt_sigqueueinfo
        "refused(297, parent, parent, 0, 0)",  # rt_tgsigqueueinfo
        "refused(434, parent, 0)",  # pidfd_open
        "refused(438, 0, 0, 0)",  # pidfd_getfd
        "refused(310, parent, 0, 0, 0, 0, 0)",  # process_vm_readv
        "refused(101, 16, parent, 0, 0)",  # ptrace
        "refused(56, 17, 0, 0, 0, 0)",  # clone, as fork does
        "refused(435, 0, 0, error=38)",  # clone3, so that clone is asked
        "refused(57); refused(58)",  # fork, vfork
        "refused(272, 0x10000000)",  # unshare
        "refused(425, 8, 0)",  # io_uring_setup
        "refused(0x40000000 | 39)",  # getpid, by the numbers of x32
    ],
)
def test_a_call_is_refused_however_it_is_made(call: str, tmp_path: Path) -> None:
    """Not the library's functions are refused but the kernel's calls."""
    done = _confined(call, tmp_path)
    assert done.returncode == 0, done.stderr


@_LANDLOCKED
@pytest.mark.parametrize(
    "attack",
    [
        "open(secret)",
        "open(secret, 'w')",
        "os.truncate(secret, 0)",
        "os.unlink(secret)",
        "os.rename(secret, folder / 'taken')",
        "os.link(secret, folder / 'taken')",
        "os.symlink(secret, folder / 'taken')",
        "(folder.parent / 'new').write_text('')",
        "os.mkfifo(folder / 'pipe')",
        "os.listdir(folder.parent)",
        "open(f'/proc/{parent}/mem', 'r+b')",
        "open(f'/proc/{parent}/environ')",
        "open('/etc/passwd')",
        "os.listdir(Path.home())",
        "open('/dev/shm/taken', 'w')",
    ],
)
def test_no_file_but_its_own_can_be_touched(attack: str, tmp_path: Path) -> None:
    """Nothing of the user is read, overwritten, moved or linked to, whatever its mode allows."""
    done = _confined(attack, tmp_path)
    assert done.returncode != 0
    # A rename or link across directories is refused as one across devices.
    assert "PermissionError" in done.stderr or "cross-device" in done.stderr, done.stderr
    assert (tmp_path / "secret").read_text(encoding="ascii") == "of the user"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["own", "secret"]


def test_what_a_validation_needs_is_allowed(tmp_path: Path) -> None:
    """Threads, an own folder, imports, and an end by abort."""
    done = _confined(
        """
        import threading, numpy, onnxruntime
        threads = [threading.Thread(target=int) for _ in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        (folder / "report").write_text("done")
        (folder / "report").replace(folder / "report.json")
        assert (folder / "report.json").read_text() == "done"
        sys.stderr.flush()
        os.abort()
        """,
        tmp_path,
    )
    assert done.returncode == -6, done.stderr


def test_processor_time_is_bounded(tmp_path: Path) -> None:
    """A process that never ends is ended by the kernel."""
    assert _confined("while True: pass", tmp_path).returncode < 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to lose")
def test_root_has_no_privileges_left(tmp_path: Path) -> None:
    """In a user namespace of its own, root is nobody outside."""
    done = _confined(
        "print(confined.namespace, os.getuid(), open('/proc/self/uid_map').read() == '')", tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() in (["True", "65534", "True"], ["False", "0", "False"])
