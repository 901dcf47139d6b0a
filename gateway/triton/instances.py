"""
The instances of the embedded server's models: each is a process, a stub, of our backend.

Every instance keeps a presence file, named by its process, from the start of `initialize` to the
end of `finalize`.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Stub:
    """One instance of one version of a model, and the process it runs in."""

    model: str
    version: int
    instance: str
    pid: int


def present_stubs(instances: Path) -> Iterator[tuple[Path, Stub]]:
    """Yield each presence file in a folder and what it says."""
    for presence in instances.iterdir():
        if not presence.name.isdecimal():
            continue  # a draft
        try:
            said = json.loads(presence.read_bytes())
        except FileNotFoundError:
            continue  # unloaded between the listing and the read
        yield (
            presence,
            Stub(said["model"], said["version"], said["instance"], int(presence.name)),
        )


def cpu_time_s(pid: int) -> float:
    """
    Read the CPU time of another process, all its threads together, in seconds.

    Raises:
        ProcessLookupError: There is no such process.

    Source: clock_getcpuclockid(3), which makes the clock's number in this way; CPUCLOCK_SCHED and
    MAKE_PROCESS_CPUCLOCK in the kernel's posix-timers_types.h.
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError as error:
        raise ProcessLookupError(pid) from error
