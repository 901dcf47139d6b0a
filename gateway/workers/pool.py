"""
The worker processes: started, watched, started again with a growing delay when they keep dying.

Each is a program of its own (spawn and exec, no fork of a running loop), in a session of its own so
that Ctrl-C reaches the parent alone, and dies with the parent, however that ends.

A worker that ends before it was ever ready, at the first start, is a fault of the settings or the
machine: then the whole gateway ends, instead of trying for ever.
"""

import asyncio
import contextlib
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import structlog
from prometheus_client.core import Metric

from gateway.backoff import early_deaths, restart_delay_s
from gateway.triton.embedded.process import bound_to_this_process, describe_exit
from gateway.workers.door import Door
from gateway.workers.link import Handlers, Link
from gateway.workers.messages import Report

log = structlog.get_logger(__name__)

# A worker reports twice a second. One that hangs gets no more connections, and is killed at last.
_AVOIDED_AFTER_S = 2.0
_KILLED_AFTER_S = 15.0


class WorkersFailed(Exception):
    """The gateway cannot run its workers; the text says why, as far as it is known."""


@dataclass(eq=False)
class Member:
    """
    One worker process.

    Attributes:
        number: 1 … N; a successor has the number of its predecessor.
        welcomed: It was told how things are, and is told what changes.
        serving: It takes connections.
        ready_at_s: Since when all is loaded, as it sees it (monotonic); None before.
        generation, revision: Of the catalog and of the loads that it knows.
        counted: What it had counted when it last said so.
        report: What it last said of itself.
        silent: It did not say in time that it knows a change; nobody waits for it.
        heard_at_s: When it last reported (monotonic).
        places: Shared places that it holds.
    """

    number: int
    process: asyncio.subprocess.Process
    door: Door
    link: Link
    welcomed: bool = False
    serving: bool = False
    ready_at_s: float | None = None
    generation: int = -1
    revision: int = -1
    silent: bool = False
    heard_at_s: float = field(default_factory=time.monotonic)
    counted: list[Metric] = field(default_factory=list)
    report: Report | None = None
    places: int = 0

    def lags(self, generation: int, revision: int) -> bool:
        """Whether it has a catalog, and knows less than this."""
        has_catalog = self.generation >= 0 and not self.silent
        return has_catalog and (self.generation < generation or self.revision < revision)

    def silent_for_s(self) -> float:
        """Tell for how long it has not reported; 0 while it starts."""
        return time.monotonic() - self.heard_at_s if self.ready_at_s is not None else 0.0


class Pool:
    """All of them. `handlers` answers a worker's calls, `ended` hears of its death."""

    def __init__(
        self,
        workers: int,
        *,
        handlers: Callable[[Member], Handlers],
        ended: Callable[[Member], None],
    ) -> None:
        self.members: dict[int, Member] = {}
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Why the workers cannot run, once that is known."""
        self._workers = workers
        self._handlers = handlers
        self._ended = ended
        self._ready = asyncio.Event()
        self._stopping = asyncio.Event()
        self._keepers: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start them all. Call it on the main thread: they die with the thread that starts them."""
        self._keepers = [
            asyncio.create_task(self._keep(number)) for number in range(1, self._workers + 1)
        ]
        for keeper in self._keepers:
            keeper.add_done_callback(self._fault)

    def __iter__(self) -> Iterator[Member]:
        return iter(list(self.members.values()))

    def doors(self) -> list[Door]:
        """List the doors of those that are ready and not hung; while none is, of all that serve."""
        serving = [member for member in self if member.serving]
        ready = [member for member in serving if member.ready_at_s is not None]
        well = [member for member in ready if member.silent_for_s() < _AVOIDED_AFTER_S]
        return [member.door for member in well or ready or serving]

    def note_ready(self, member: Member) -> None:
        """Hear that a worker has everything loaded."""
        member.ready_at_s = time.monotonic()
        if sum(each.ready_at_s is not None for each in self) == self._workers:
            self._ready.set()

    async def all_ready(self) -> None:
        """
        Wait until every worker has been ready.

        Raises:
            WorkersFailed: One of them could not start.
        """
        ready = asyncio.create_task(self._ready.wait())
        try:
            either: list[asyncio.Future[Any]] = [ready, self.failed]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if self.failed.done():
            raise WorkersFailed(self.failed.result())

    def signal(self, number: int) -> None:
        """Send a signal to all of them, and start none again."""
        self._stopping.set()
        for member in self:
            with contextlib.suppress(ProcessLookupError):
                member.process.send_signal(number)

    async def stop(self, grace_s: float) -> None:
        """End them: in order, and what has not ended `grace_s` seconds later by force."""
        self.signal(signal.SIGTERM)
        waiting = [keeper for keeper in self._keepers if not keeper.done()]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=grace_s)
            if late and grace_s:
                log.warning("workers_killed", reason="did not end in time", grace_s=grace_s)
            if late:
                self.signal(signal.SIGKILL)
                await asyncio.wait(late)

    async def _keep(self, number: int) -> None:
        deaths = 0
        while True:
            how, lived_s = await self._live(number)
            if self._stopping.is_set():
                return
            if not self._ready.is_set() and lived_s is None:
                self._fail(f"Worker {number} could not start ({how}).")
                return
            deaths = early_deaths(deaths, lived_s or 0.0)
            delay_s = restart_delay_s(deaths)
            log.error("worker_died", worker=number, reason=how, delay_s=delay_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay_s)
                return

    async def _live(self, number: int) -> tuple[str, float | None]:
        """Start a worker and wait for its end; tell how it ended and for how long it was ready."""
        try:
            member = await self._spawn(number)
        except OSError as error:
            return str(error), None
        if self._stopping.is_set():
            # It was on its way when the others were told.
            member.process.kill()
        status = await _until_end(member)
        await self._bury(member)
        if member.ready_at_s is None:
            return describe_exit(status), None
        if status and self._stopping.is_set():
            log.warning("worker_ended", worker=number, reason=describe_exit(status))
        return describe_exit(status), time.monotonic() - member.ready_at_s

    async def _spawn(self, number: int) -> Member:
        wire, far_wire = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far_wire, far:
            process = await asyncio.create_subprocess_exec(
                *bound_to_this_process(),
                sys.executable,
                "-m",
                "gateway",
                "worker",
                str(number),
                str(far_wire.fileno()),
                str(far.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(far_wire.fileno(), far.fileno()),
                start_new_session=True,
            )
        # Its first call comes long after `handlers` is complete.
        handlers: dict[str, Callable[..., object]] = {}
        member = Member(number, process, Door(near), await Link.open(wire, handlers))
        handlers.update(self._handlers(member))
        self.members[number] = member
        return member

    async def _bury(self, member: Member) -> None:
        self.members.pop(member.number, None)
        member.serving = member.welcomed = False
        self._ended(member)
        await member.link.close()

    def _fail(self, reason: str) -> None:
        if not self.failed.done():
            self.failed.set_result(reason)

    def _fault(self, keeper: asyncio.Task[None]) -> None:
        """A worker that nobody watches would be missing for ever."""
        if not keeper.cancelled() and (fault := keeper.exception()) is not None:
            self._fail(f"A worker cannot be watched: {fault!r}")


async def _until_end(member: Member) -> int:
    """Wait for the end of a worker, and bring it about if it hangs; return the exit status."""
    ended = asyncio.create_task(member.process.wait())
    was_silent = False
    while not ended.done():
        await asyncio.wait([ended], timeout=_AVOIDED_AFTER_S)
        # Twice in a row: if it was the parent that stood still, the reports are being read now.
        before, was_silent = was_silent, member.silent_for_s() > _KILLED_AFTER_S
        if not ended.done() and before and was_silent:
            log.error("worker_hangs", worker=member.number, pid=member.process.pid)
            member.process.kill()
    return ended.result()
