"""
How a model uses the machine: instances side by side, threads inside each.

Measured on two cores with EfficientNet-Lite0: two instances of one thread answer twice as many
requests as one instance of one thread, and also twice as many as two instances of two threads,
which get in each other's way. So instances × threads never exceeds the cores, and instances come
first. An instance costs a process and a copy of the weights, hence at most four.

A request that has the machine to itself would then leave cores idle. For it an instance may keep a
second session, with a thread for each core (docs/decisions/0009).
"""

import os
from dataclasses import dataclass
from pathlib import Path

_MAX_INSTANCES = 4
_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True, slots=True)
class Placement:
    """
    What a model gets of a machine.

    Attributes:
        instances: Triton instances: processes that each hold the model.
        intra_op_threads: Threads with which an instance runs one operator.
        latency_threads: Threads for a request that is alone; None: as for any other.
    """

    instances: int
    intra_op_threads: int
    latency_threads: int | None = None


def placement_for_machine(cores: int | None = None) -> Placement:
    """
    Share the cores out among up to four instances.

    Args:
        cores: How many there are; None: as many as this process may use.
    """
    cores = usable_cores() if cores is None else max(1, cores)
    threads = -(-cores // _MAX_INSTANCES)
    return Placement(
        instances=cores // threads,
        intra_op_threads=threads,
        latency_threads=cores if cores > threads else None,
    )


def usable_cores() -> int:
    """
    Count the cores that this process may use: its affinity, and a container's CPU limit, which the
    affinity does not show. A fraction of a core counts as one.

    Source: Linux, Control Group v2 ("cpu.max": quota and period in microseconds, or "max").
    """
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = _CGROUP_QUOTA.read_text().split()
    except OSError:  # the root group, cgroup v1, or no cgroups: no limit to be read
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
