"""
What a gateway that was killed may have left: stubs that hang in a run, shared-memory regions.

Only what carries this data directory's shared-memory prefix and belongs to this user is touched,
and only by the holder of the directory's lock; nothing of another gateway can match.
"""

import contextlib
import os
import select
import signal
from pathlib import Path

import psutil
import structlog

log = structlog.get_logger(__name__)

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lies on Linux
WAIT_S = 5.0


def sweep(prefix: str) -> None:
    """Remove processes and regions that carry `prefix`."""
    pids = sweep_processes(prefix)
    regions = sweep_shared_memory(prefix)
    if pids or regions:
        log.info("triton_orphans_swept", pids=pids, regions=len(regions))


def sweep_processes(prefix: str) -> list[int]:
    """Kill this user's processes whose command line carries `prefix`; return their pids."""
    pids = [process.pid for process in psutil.process_iter() if _is_orphan(process, prefix)]
    for pid in pids:
        _end(pid)
    return pids


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


def _end(pid: int) -> None:
    """Kill, and wait for the end; not for its being reaped, which an idle init may never do."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        ended = select.poll()
        ended.register(descriptor, select.POLLIN)
        ended.poll(WAIT_S * 1000)
    finally:
        os.close(descriptor)
