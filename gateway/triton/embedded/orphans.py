"""
What a gateway that was killed may have left: stubs that hang in a run, shared-memory regions.

Only what carries this data directory's shared-memory prefix and belongs to this user is touched, and
only by the holder of the directory's lock; nothing of another gateway can match.
"""

import contextlib
import os
from pathlib import Path

import psutil

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lies on Linux
WAIT_S = 5.0


def sweep_processes(prefix: str) -> list[int]:
    """Kill this user's processes whose command line carries `prefix`; return their pids."""
    orphans = [process for process in psutil.process_iter() if _is_orphan(process, prefix)]
    for process in orphans:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(orphans, timeout=WAIT_S)
    return [process.pid for process in orphans]


def sweep_shared_memory(prefix: str, directory: Path = SHARED_MEMORY) -> list[str]:
    """Remove the regions that carry `prefix`; return their names."""
    regions = sorted(directory.glob(f"{prefix}*"))
    for region in regions:
        region.unlink(missing_ok=True)
    return [region.name for region in regions]


def _is_orphan(process: psutil.Process, prefix: str) -> bool:
    try:
        return (
            process.pid != os.getpid()
            and process.uids().real == os.getuid()
            and any(prefix in argument for argument in process.cmdline())
        )
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # a zombie, too, is a NoSuchProcess
        return False
