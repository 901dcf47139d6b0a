"""
Bounds for a process that handles a file from outside. It sets them upon itself, before it looks at
the file; none can be taken back.

Memory, processor time, the size of files and their number are bounded by rlimits. New sockets,
programs and ways around the bounds are refused by a seccomp filter, which any process may install,
in a container too. The kernel kills the process when its parent is gone.

Source: Linux, setrlimit(2), prctl(2), seccomp(2).
"""

import ctypes
import platform
import resource
import signal
import struct
from dataclasses import dataclass
from pathlib import Path

from gateway.processes import die_with_parent

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 38, 22
_SECCOMP_MODE_FILTER = 2
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF_0000, 0x8000_0000, 0x0005_0000
_EPERM = 1
_X32_CALLS = 0x4000_0000
# socket, socketpair, connect, kill, execve, execveat, ptrace, process_vm_writev, io_uring_setup,
# setns, unshare, mount.
_REFUSED_CALLS = {
    "x86_64": (0xC000_003E, (41, 53, 42, 62, 59, 322, 101, 311, 425, 308, 272, 165)),
    "aarch64": (0xC000_00B7, (198, 199, 203, 129, 221, 281, 117, 271, 425, 268, 97, 40)),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What the process may use."""

    memory_bytes: int
    cpu_s: int
    file_bytes: int
    open_files: int = 64


def confine(limits: Limits) -> bool:
    """
    Bound this process.

    Returns:
        Whether new sockets are refused: not on a machine whose system calls are not known here,
        or a kernel without seccomp.
    """
    die_with_parent()
    # If memory runs out, this process goes and not the server.
    Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    # A file that grows too large is an error and not the end; the report must still be written.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for what, most in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (bound, bound))
    return _refuse_calls(ctypes.CDLL(None, use_errno=True))


def _refuse_calls(libc: ctypes.CDLL) -> bool:
    known = _REFUSED_CALLS.get(platform.machine())
    if known is None:
        return False
    architecture, calls = known
    last = len(calls)
    program = [
        _instruction(_LOAD, 0, 0, 4),
        _instruction(_JUMP_EQUAL, 1, 0, architecture),
        _instruction(_RETURN, 0, 0, _KILL),
        _instruction(_LOAD, 0, 0, 0),
        _instruction(_JUMP_AT_LEAST, last + 1, 0, _X32_CALLS),
        *(_instruction(_JUMP_EQUAL, last - i, 0, call) for i, call in enumerate(calls)),
        _instruction(_RETURN, 0, 0, _ALLOW),
        _instruction(_RETURN, 0, 0, _ERRNO | _EPERM),
    ]
    code = ctypes.create_string_buffer(b"".join(program))
    # struct sock_fprog: a length, padding, a pointer.
    fprog = ctypes.create_string_buffer(
        struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code))
    )
    return bool(
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
        and libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, fprog, 0, 0) == 0
    )


def _instruction(code: int, jump_true: int, jump_false: int, value: int) -> bytes:
    return struct.pack("HBBI", code, jump_true, jump_false, value)


def peak_memory_bytes() -> int:
    """Tell the largest resident size that this process has had."""
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kibibytes * 1024
