"""
The watch over the stubs, the processes in which the models run.

Triton neither restarts a stub that died nor says that it did: the model stays READY and its
requests fail. A stub that was halted is worse: once it goes on, it brings the whole server down, so
it is killed instead.

Every instance of our backend keeps a presence file from the start of `initialize` to the end of
`finalize`. That tells a crash from an unload without asking Triton: an unloaded stub takes its file
away before it leaves; a crashed one cannot. One look is one listing of a directory and one small
read of /proc for each instance.
"""

import contextlib
import os
import signal
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.system.processes import describe_exit
from gateway.triton.instances import Stub, present_stubs

HALTED_S = 0.5
REPLACED_S = 600.0
# Triton collects a stub that it ended itself within about a second.
STILLBORN_S = 2.0
ZOMBIE, GONE, HALTED = "Z", "X", "Tt"


@dataclass(frozen=True, slots=True)
class LostStub:
    """A stub that ended without an unload; `detail` says how, for people."""

    stub: Stub
    detail: str


class StubWatch:
    """Looks at the presence files; remembers since when stubs are halted, replaced or dead."""

    def __init__(
        self, instances: Path, *, halted_s: float = HALTED_S, replaced_s: float = REPLACED_S
    ) -> None:
        self._instances = instances
        self._halted_s = halted_s
        self._replaced_s = replaced_s
        self._replaced_since: dict[int, float] = {}
        self._halted_since: dict[int, float] = {}
        self._known: set[int] = set()
        self._dead_since: dict[int, float] = {}

    def look(self, now: float) -> list[LostStub]:
        """
        Return the stubs that were lost since the last look; each is told once.

        Args:
            now: A monotonic time in seconds.
        """
        lost = []
        for presence, stub in self.present():
            self._known.add(stub.pid)
            state, status = process_state(stub.pid)
            if state in HALTED:
                since = self._halted_since.setdefault(stub.pid, now)
                if now - since < self._halted_s:
                    continue
                with contextlib.suppress(ProcessLookupError):  # it has ended since
                    os.kill(stub.pid, signal.SIGKILL)
                detail = f"was halted for {now - since:.1f} s and had to be killed"
            elif state in (ZOMBIE, GONE):
                detail = "ended: " + describe_wait_status(status)
            else:
                self._halted_since.pop(stub.pid, None)
                continue
            self._halted_since.pop(stub.pid, None)
            try:
                presence.unlink()
            except FileNotFoundError:
                continue  # it was unloaded, between the listing and the look at its process
            lost.append(LostStub(stub, f"stub {stub.instance} (pid {stub.pid}) {detail}"))
        return lost

    def end_replaced(self, now: float) -> list[Stub]:
        """
        End the stubs that Triton keeps for ever, and return them: a model whose stub was lost with
        a request in it is replaced, but never unloaded, and the other stubs of that model stay too.

        Args:
            now: A monotonic time in seconds.
        """
        lives: defaultdict[tuple[str, int, str], list[tuple[int, Path, Stub]]] = defaultdict(list)
        for presence, stub in self.present():
            with contextlib.suppress(FileNotFoundError):  # unloaded since
                life = presence.stat().st_mtime_ns, presence, stub
                lives[stub.model, stub.version, stub.instance].append(life)
        replaced = {
            stub.pid: (presence, stub)
            for each in lives.values()
            for _, presence, stub in sorted(each, key=lambda life: (life[0], life[2].pid))[:-1]
        }
        self._replaced_since = {pid: self._replaced_since.get(pid, now) for pid in replaced}
        ended = []
        for pid, (presence, stub) in replaced.items():
            if now - self._replaced_since[pid] >= self._replaced_s:
                # Its file first: what ends without one is no lost stub.
                presence.unlink(missing_ok=True)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                ended.append(stub)
        return ended

    def stillborn(self, server_pid: int, now: float) -> int | None:
        """
        Return a stub that died before it could say that it is there, if there is one: Triton waits
        for it for ever, and with it the load that started it.

        Args:
            server_pid: The process of the server.
            now: A monotonic time in seconds.
        """
        dead = {
            pid
            for pid in children_of(server_pid)
            if pid not in self._known and process_state(pid)[0] == ZOMBIE
        }
        self._dead_since = {pid: self._dead_since.get(pid, now) for pid in dead}
        return next((p for p, at in self._dead_since.items() if now - at >= STILLBORN_S), None)

    def present(self) -> Iterator[tuple[Path, Stub]]:
        """Yield each presence file and what it says."""
        return present_stubs(self._instances)


def children_of(pid: int) -> list[int]:
    """List the children of a process, whichever of its threads began them; none if it is gone."""
    children: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                children += map(int, (thread / "children").read_text().split())
    return children


def process_state(pid: int) -> tuple[str, int | None]:
    """
    Return the state letter of /proc (X: no such process) and, of a zombie, its wait status.

    Source: proc_pid_stat(5), fields 3 (state) and 52 (exit_code).
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return GONE, None
    fields = stat.rpartition(")")[2].split()
    return fields[0], int(fields[-1]) if fields[0] == ZOMBIE else None


def describe_wait_status(status: int | None) -> str:
    """Say how a process ended: "killed by SIGSEGV", "exit status 1"."""
    if status is None:
        return "nobody saw how"
    return describe_exit(os.waitstatus_to_exitcode(status))
