"""What a server costs: CPU time and memory of its whole process tree, from /proc."""

import ctypes
import os
import resource
from dataclasses import dataclass
from pathlib import Path

import psutil

_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """
    Keep all descendants of this process in its tree, daemons included: one whose parent ends is
    this process's child from then on, not process 1's. Called between fork and exec; outlasts exec.

    Source: Linux, prctl(2), PR_SET_CHILD_SUBREAPER.

    Raises:
        OSError: The kernel refused.
    """
    if _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def tree(pid: int) -> list[psutil.Process]:
    """Give a process and all that it started, Triton and the processes of its models included."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def cpu_s(pid: int) -> float:
    """Give the CPU time of the tree, in seconds, that of children which ended included."""
    total_s = 0.0
    for process in tree(pid):
        try:
            total_s += sum(process.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue  # Its time is among its parent's children's.
    return total_s


def pss_bytes(pid: int, *, files: bool = True) -> int:
    """
    Give the memory of the tree: what is shared counts once, split among those who share it. Without
    `files`, pages of programs and libraries do not count: how many processes of other people share
    those changes from minute to minute.
    """
    total = 0
    for process in tree(pid):
        try:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii")
        except (FileNotFoundError, ProcessLookupError):
            continue  # It ended since.
        sizes = {line.split()[0]: int(line.split()[1]) for line in lines.splitlines()[1:]}
        total += 1024 * (sizes["Pss:"] - (0 if files else sizes["Pss_File:"]))
    return total


@dataclass(frozen=True)
class MachineClock:
    """CPU time of the whole machine, and of the load generators that have ended, in seconds."""

    busy_s: float
    load_s: float

    @classmethod
    def now(cls) -> "MachineClock":
        """Read both."""
        times = psutil.cpu_times()
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        busy_s = times.user + times.nice + times.system + times.irq + times.softirq + times.steal
        return cls(busy_s, ended.ru_utime + ended.ru_stime)
