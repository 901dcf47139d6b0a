"""
Bounds for a process that handles a file from outside. It sets them upon itself, before it looks at
the file; none can be taken back.

    rlimits         memory, processor time, size and number of files
    user namespace  no capability over anything outside, no network interface; where it is allowed
    Landlock        no file but the interpreter's, the model and an own folder; where there is one
    seccomp         no sockets, programs, processes or signals to others; see `seccomp.py`

The kernel kills the process when its parent is gone. `gateway doctor` tells what holds on a
machine: `python -I -m gateway.registry.validation.sandbox FOLDER` tries it out.

Source: Linux, setrlimit(2), prctl(2), user_namespaces(7).
"""

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gateway.registry.validation.landlock import allow_only
from gateway.registry.validation.seccomp import refuse_calls
from gateway.system.processes import die_with_parent

_NEW_USER, _NEW_IPC, _NEW_NETWORK = 0x1000_0000, 0x0800_0000, 0x4000_0000
# Threads count, too; in an own user namespace those of nobody else do.
_MOST_THREADS = 128
_PACKAGE = Path(__file__).parents[2]
# What the interpreter, the C library and onnxruntime read on the way.
_SYSTEM = (
    *("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime"),
    *("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat"),
    *("/sys/devices/system", "/sys/fs/cgroup"),
    *("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"),
)


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """What the process may use."""

    memory_bytes: int
    cpu_s: int
    file_bytes: int
    open_files: int = 64


@dataclass(frozen=True, slots=True)
class Confined:
    """
    Which bounds hold; rlimits always do.

    Attributes:
        calls: The filter of system calls: no sockets, programs, processes, signals.
        files: Landlock: no files but its own.
        namespace: A user namespace of its own.
    """

    calls: bool
    files: bool
    namespace: bool


def confine(
    limits: SandboxLimits, *, reading: Sequence[Path], writing: Path, folders: bool = False
) -> Confined:
    """
    Bound this process, which has one thread.

    Args:
        limits: What it may use.
        reading: What it reads beside what it is made of.
        writing: The one folder that it writes into.
        folders: Whether it may make folders there.
    """
    # If memory runs out, this process goes and not the server.
    Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    # A file that grows too large is an error and not the end; the report must still be written.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    readable = [*map(Path, _SYSTEM), *_interpreter(), _PACKAGE, *reading]
    namespace = _reaches(readable, writing) and _own_namespace()
    die_with_parent()
    for what, most in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_CORE, 0),
        *([(resource.RLIMIT_NPROC, _MOST_THREADS)] if namespace else []),
    ):
        hard = resource.getrlimit(what)[1]
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (bound, bound))
    files = allow_only(readable, writing, folders=folders)
    return Confined(calls=refuse_calls(), files=files, namespace=namespace)


def peak_memory_bytes() -> int:
    """Tell the largest resident size that this process has had."""
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kibibytes * 1024


def _interpreter() -> list[Path]:
    """List where modules lie that belong to the interpreter or to its virtual environment."""
    roots = {Path(root).resolve() for root in (sys.prefix, sys.base_prefix)}
    searched = [Path(entry).resolve() for entry in sys.path if entry]
    return [place for place in searched if any(place.is_relative_to(root) for root in roots)]


def _own_namespace() -> bool:
    flags = _NEW_USER | _NEW_IPC | _NEW_NETWORK
    return bool(ctypes.CDLL(None, use_errno=True).unshare(flags) == 0)


def _reaches(reading: Sequence[Path], writing: Path) -> bool:
    """Whether the files can be reached without root's privileges, tried out by a child."""
    if os.geteuid() != 0:
        return True
    child = os.fork()
    if child == 0:
        there = [place for place in reading if place.exists()]
        allowed = _own_namespace() and os.access(writing, os.R_OK | os.W_OK | os.X_OK)
        os._exit(0 if allowed and all(os.access(place, os.R_OK) for place in there) else 1)
    return os.waitpid(child, 0)[1] == 0


def main() -> None:
    """Print which bounds hold on this machine; the argument is a folder to write in."""
    limits = SandboxLimits(memory_bytes=1 << 30, cpu_s=10, file_bytes=1 << 20)
    confined = confine(limits, reading=[], writing=Path(sys.argv[1]))
    sys.stdout.write(json.dumps(asdict(confined)))


if __name__ == "__main__":
    main()
