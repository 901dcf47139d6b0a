"""
What versions have computed, without the waiting.

Triton counts the inferences, and how long each took. On a machine whose cores are all in use that
is no measure of a version: it grows with what computes beside it, and a version that gets few
requests always computes beside one that gets many. Where the processes of the instances run here
and on no GPU, their CPU time is taken instead, which does not depend on the others.
"""

import asyncio
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import structlog

from gateway.triton.errors import TritonError
from gateway.triton.instances import cpu_time_s, present_stubs
from gateway.triton.replicas import Replica, ReplicaSet, Served

log = structlog.get_logger(__name__)

_TIMEOUT_S = 2.0


class Computed(NamedTuple):
    """
    What a version has computed at one replica.

    Attributes:
        runs: Inferences since the server began.
        seconds: What they took; a difference of two readings tells, not the number itself.
        processes: Those whose CPU time that is; empty where it is the time that Triton measured.
    """

    runs: int
    seconds: float
    processes: frozenset[int] = frozenset()


async def computed(replicas: ReplicaSet) -> dict[tuple[str, str, int], Computed]:
    """
    Ask every live replica; one that does not answer is left out.

    Returns:
        By replica, and by the model and version that callers name.
    """
    answers = await asyncio.gather(*(_ask(replica, replicas) for replica in replicas.live()))
    return {key: value for answer in answers for key, value in answer.items()}


async def _ask(replica: Replica, replicas: ReplicaSet) -> dict[tuple[str, str, int], Computed]:
    instances = replica.client.endpoint.instances
    try:
        statistics = await replica.client.statistics(timeout_s=_TIMEOUT_S)
        used = None if instances is None else await asyncio.to_thread(_cpu_times, Path(instances))
    except (TritonError, OSError) as error:
        log.debug("computing_unread", replica=replica.name, reason=repr(error))
        return {}
    by_served = replicas.names.by_served
    processes = None if used is None else by_served(used)
    found = {}
    for served, seen in by_served(statistics).items():
        by_process = {} if processes is None else processes.get(served)
        if by_process is None:
            continue
        seconds = sum(by_process.values()) if by_process else seen.compute_s
        found[replica.name, *served] = Computed(seen.inferences, seconds, frozenset(by_process))
    return found


def _cpu_times(instances: Path) -> dict[Served, dict[int, float]]:
    """Read the CPU time of every instance's process: by Triton model and version, then process."""
    found: defaultdict[Served, dict[int, float]] = defaultdict(dict)
    for _, stub in present_stubs(instances):
        found[stub.model, stub.version][stub.pid] = cpu_time_s(stub.pid)
    return found
