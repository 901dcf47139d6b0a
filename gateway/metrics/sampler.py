"""
Samples of versions: what Triton says of them, and the memory of the processes that run them.

Once a minute each replica is asked for its statistics, and the growth since then is stored. A
counter that is smaller than last time belongs to a new process and is taken as it is.
"""

import asyncio
import contextlib
import csv
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import psutil
import structlog

from gateway.store.outage import StoreOutage
from gateway.store.version_samples import MINUTE_S, VersionSample, VersionSampleStore
from gateway.triton.errors import TritonError
from gateway.triton.instances import Stub
from gateway.triton.replicas import ReplicaSet, Served
from gateway.triton.statistics import VersionStatistics

log = structlog.get_logger(__name__)

_TIMEOUT_S = 5.0
_NVIDIA_SMI = (
    "nvidia-smi",
    "--query-compute-apps=pid,used_memory",
    "--format=csv,noheader,nounits",
)


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a version's processes, in bytes; None where it is not known."""

    resident_bytes: int | None = None
    gpu_bytes: int | None = None


class Sampler:
    """Looks at every version on every replica."""

    def __init__(
        self,
        replicas: ReplicaSet,
        store: VersionSampleStore,
        *,
        writer: str,
        load_times_s: Callable[[], Mapping[tuple[str, str, int], float]],
        stubs: Callable[[], Iterable[Stub]],
    ) -> None:
        self._replicas = replicas
        self._store = store
        self._writer = writer
        self._load_times_s = load_times_s
        self._stubs = stubs
        self._before: dict[tuple[str, Served], VersionStatistics] = {}

    async def follow(self) -> None:
        """Sample at the end of every minute, for ever."""
        outage = StoreOutage("samples_not_stored", "samples_stored_again")
        while True:
            await asyncio.sleep(MINUTE_S - time.time() % MINUTE_S)
            with outage.tolerated():
                await self.sample(time.time())

    async def sample(self, now_s: float) -> None:
        """
        Look once, and store what was seen under the minute before `now_s`.

        Raises:
            StoreUnavailable: The database is away; the look is lost.
        """
        start_s = int(now_s - 1) // MINUTE_S * MINUTE_S
        memory = await asyncio.to_thread(self._memory)
        found = []
        for replica in self._replicas.live():
            try:
                statistics = await replica.client.statistics(timeout_s=_TIMEOUT_S)
            except TritonError as error:
                log.info("statistics_unread", replica=replica.name, reason=str(error))
                continue
            for served, now in self._replicas.names.by_served(statistics).items():
                before = self._before.get((replica.name, served))
                self._before[replica.name, served] = now
                used = memory.get(served, Memory()) if replica.name == "embedded" else Memory()
                added = now.since(before)
                found.append(
                    VersionSample(
                        start_s=start_s,
                        replica=replica.name,
                        model=served[0],
                        version=served[1],
                        load_s=self._load_times_s().get((replica.name, *served)),
                        memory_bytes=used.resident_bytes,
                        gpu_memory_bytes=used.gpu_bytes,
                        pending=replica.in_flight[served],
                        inferences=added.inferences,
                        executions=added.executions,
                        queue_s=added.queue_s,
                        compute_s=added.compute_s,
                        batch_sizes={str(size): n for size, n in added.batch_sizes.items()},
                    )
                )
        await self._store.write(found, writer=self._writer)

    def _memory(self) -> dict[Served, Memory]:
        on_gpu = _gpu_memory_bytes()
        resident: dict[Served, int] = {}
        gpu: dict[Served, int] = {}
        for stub in self._stubs():
            served = self._replicas.names.served(stub.model, stub.version)
            with contextlib.suppress(psutil.NoSuchProcess):
                used_bytes = psutil.Process(stub.pid).memory_info().rss
                resident[served] = resident.get(served, 0) + used_bytes
                if stub.pid in on_gpu:
                    gpu[served] = gpu.get(served, 0) + on_gpu[stub.pid]
        return {served: Memory(used, gpu.get(served)) for served, used in resident.items()}


def _gpu_memory_bytes() -> dict[int, int]:
    """Ask the driver for the GPU memory of each process; nothing where there is no driver."""
    if shutil.which(_NVIDIA_SMI[0]) is None:
        return {}
    answer = subprocess.run(_NVIDIA_SMI, capture_output=True, text=True, check=False, timeout=5)
    rows = (row for row in csv.reader(answer.stdout.splitlines()) if len(row) == 2)
    return {int(pid): int(used) << 20 for pid, used in rows if used.strip().isdecimal()}
