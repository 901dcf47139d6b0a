"""A gateway's processes as a soak looks at them: memory, open files, shared memory."""

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from perf.bench import processes
from perf.bench.servers import Server, ServerFailedError

_SHARED = Path("/dev/shm")
# Past the gateway's deadline of a request, and a margin.
_SETTLED_WITHIN_S = 60.0
_POLL_S = 0.1


@dataclass(frozen=True)
class Sample:
    """
    After a stretch of load: memory in bytes (PSS without
    libraries), numbers of open files and of shared-memory regions.
    """

    requests: int
    gateway_bytes: int
    triton_bytes: int
    gateway_files: int
    triton_files: int
    regions: int


class Watcher:
    """Looks at a gateway's processes, and remembers every shared-memory file that they had."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._seen: set[Path] = set()

    def triton(self) -> psutil.Process | None:
        """Give the embedded tritonserver, None while there is none."""
        for child in psutil.Process(self._server.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.name() == "tritonserver":
                    return child
        return None

    def stubs(self) -> int:
        """Count the processes that run models."""
        triton = self.triton()
        if triton is None:
            return 0
        with contextlib.suppress(psutil.NoSuchProcess):
            return sum(stub.status() != psutil.STATUS_ZOMBIE for stub in triton.children())
        return 0

    def settle(self, stubs: int) -> None:
        """Wait until just so many run models; those of a replaced one stay for a while."""
        deadline_s = time.monotonic() + _SETTLED_WITHIN_S
        while self.stubs() != stubs:
            if time.monotonic() > deadline_s:
                raise ServerFailedError(f"{self.stubs()} processes run models, and not {stubs}")
            # Another program's processes tell nobody when they end.
            time.sleep(_POLL_S)

    def look(self, requests: int) -> Sample:
        """Take a sample."""
        gateway = psutil.Process(self._server.pid)
        triton = self.triton()
        whole = processes.pss_bytes(gateway.pid, files=False)
        of_triton = processes.pss_bytes(triton.pid, files=False) if triton else 0
        regions = self._regions()
        self._seen |= regions
        return Sample(
            requests=requests,
            gateway_bytes=whole - of_triton,
            triton_bytes=of_triton,
            gateway_files=_open_files(gateway.pid),
            triton_files=_open_files(triton.pid) if triton else 0,
            regions=len(regions),
        )

    def _regions(self) -> set[Path]:
        found: set[Path] = set()
        for process in processes.tree(self._server.pid):
            with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
                for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines():
                    name = line.partition(str(_SHARED))
                    if name[1]:
                        found.add(Path(name[1] + name[2]))
        return found

    def left_behind(self) -> list[str]:
        """Name the files that are still there, after the gateway has stopped."""
        return sorted(str(path) for path in self._seen if path.exists())


def _open_files(pid: int) -> int:
    """
    Count open files, but not the database's: its pool opens another connection when it first
    needs one, and keeps it.
    """
    count = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since
            count += "gateway.db" not in str(descriptor.readlink())
    return count
