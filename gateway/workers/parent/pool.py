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
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import structlog

from gateway.background.backoff import early_deaths, restart_delay_s
from gateway.background.tasks import log_fault
from gateway.errors import GatewayError
from gateway.system.processes import bound_to_this_process, describe_exit
from gateway.workers.parent.worker import Worker
from gateway.workers.wire.channel import Channel
from gateway.workers.wire.handover import Handover
from gateway.workers.wire.messages import Call

log = structlog.get_logger(__name__)

Answer = TypeVar("Answer")

# A worker reports twice a second. One that hangs gets no more connections, and is killed at last.
_AVOIDED_AFTER_S = 2.0
_KILLED_AFTER_S = 15.0


class WorkersFailed(Exception):
    """The gateway cannot run its workers; the text says why, as far as it is known."""


class WorkerPool:
    """All of them."""

    def __init__(self, size: int) -> None:
        """
        Args:
            size: How many workers there are to be.
        """
        self.workers: dict[int, Worker] = {}
        loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[str] = loop.create_future()
        """Why the workers cannot run, once that is known."""
        self._size = size
        self._attendant: asyncio.Future[Callable[[Worker], AbstractContextManager[None]]] = (
            loop.create_future()
        )
        self._end_listeners: list[Callable[[Worker], None]] = []
        self._ready = asyncio.Event()
        self._stopping = asyncio.Event()
        self._keepers: list[asyncio.Task[None]] = []

    def on_end(self, listener: Callable[[Worker], None]) -> None:
        """Call `listener` with every worker that has ended."""
        self._end_listeners.append(listener)

    def attend(self, attendant: Callable[[Worker], AbstractContextManager[None]]) -> None:
        """Begin to hear what workers say: `attendant` says what is answered, and by whom."""
        self._attendant.set_result(attendant)

    def start(self) -> None:
        """Start them all. Call it on the main thread: they die with the thread that starts them."""
        self._keepers = [
            asyncio.create_task(self._keep(number)) for number in range(1, self._size + 1)
        ]
        for keeper in self._keepers:
            keeper.add_done_callback(self._fault)

    def __iter__(self) -> Iterator[Worker]:
        return iter(list(self.workers.values()))

    def handovers(self) -> list[Handover]:
        """List the ways to those that are ready and not hung; while none is, to all that serve."""
        serving = [worker for worker in self if worker.serving]
        ready = [worker for worker in serving if worker.ready_at_s is not None]
        well = [worker for worker in ready if worker.silent_for_s() < _AVOIDED_AFTER_S]
        return [worker.handover for worker in well or ready or serving]

    def note_ready(self, worker: Worker) -> None:
        """Hear that a worker has everything loaded."""
        worker.ready_at_s = time.monotonic()
        if sum(each.ready_at_s is not None for each in self) == self._size:
            self._ready.set()

    async def ask_all(
        self, call: Call[Answer], *, within_s: float, but: Worker | None = None
    ) -> list[tuple[Worker, Answer]]:
        """Ask every worker that has a catalog the same; return what was answered in time."""
        answers = []

        async def ask(worker: Worker) -> None:
            with contextlib.suppress(TimeoutError, GatewayError):
                async with asyncio.timeout(within_s):
                    answers.append((worker, await worker.channel.ask(call)))

        await asyncio.gather(*(ask(each) for each in self if each.has_catalog and each is not but))
        return answers

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

    def send_signal(self, number: int) -> None:
        """Send a signal to all of them, and start none again."""
        self._stopping.set()
        for worker in self:
            with contextlib.suppress(ProcessLookupError):
                worker.process.send_signal(number)

    async def stop(self, grace_s: float, number: int = signal.SIGTERM) -> None:
        """End them by a signal, and what has not ended `grace_s` seconds later by force."""
        self.send_signal(number)
        waiting = [keeper for keeper in self._keepers if not keeper.done()]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=grace_s)
            if late and grace_s:
                log.warning("workers_killed", reason="did not end in time", grace_s=grace_s)
            if late:
                self.send_signal(signal.SIGKILL)
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
            worker = await self._spawn(number)
        except OSError as error:
            return str(error), None
        if self._stopping.is_set():
            # It was on its way when the others were told.
            worker.process.kill()
        attending = asyncio.create_task(self._attend(worker))
        attending.add_done_callback(log_fault)
        status = await _until_end(worker)
        attending.cancel()
        await self.remove(worker)
        if worker.ready_at_s is None:
            return describe_exit(status), None
        if status and self._stopping.is_set():
            log.warning("worker_ended", worker=number, reason=describe_exit(status))
        return describe_exit(status), time.monotonic() - worker.ready_at_s

    async def _spawn(self, number: int) -> Worker:
        near_channel, far_channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        near_handover, far_handover = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far_channel, far_handover:
            process = await asyncio.create_subprocess_exec(
                *bound_to_this_process(),
                sys.executable,
                "-m",
                "gateway",
                "worker",
                str(number),
                str(far_channel.fileno()),
                str(far_handover.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(far_channel.fileno(), far_handover.fileno()),
                start_new_session=True,
            )
        worker = Worker(number, process, Handover(near_handover), Channel(near_channel))
        self.workers[number] = worker
        return worker

    async def _attend(self, worker: Worker) -> None:
        """Answer a worker, from when there is somebody to answer it to its end."""
        attendant = await asyncio.shield(self._attendant)
        with attendant(worker):
            await worker.channel.start()
            await worker.channel.closed.wait()

    async def remove(self, worker: Worker) -> None:
        """Forget a worker that has ended, and have everybody settle what it leaves."""
        del self.workers[worker.number]
        worker.serving = worker.follows = False
        for listener in self._end_listeners:
            listener(worker)
        await worker.channel.close()

    def _fail(self, reason: str) -> None:
        if not self.failed.done():
            self.failed.set_result(reason)

    def _fault(self, keeper: asyncio.Task[None]) -> None:
        """A worker that nobody watches would be missing for ever."""
        if not keeper.cancelled() and (fault := keeper.exception()) is not None:
            self._fail(f"A worker cannot be watched: {fault!r}")


async def _until_end(worker: Worker) -> int:
    """Wait for the end of a worker, and bring it about if it hangs; return the exit status."""
    ended = asyncio.create_task(worker.process.wait())
    was_silent = False
    while not ended.done():
        await asyncio.wait([ended], timeout=_AVOIDED_AFTER_S)
        # Twice in a row: if it was the parent that stood still, the reports are being read now.
        before, was_silent = was_silent, worker.silent_for_s() > _KILLED_AFTER_S
        if not ended.done() and before and was_silent:
            log.error("worker_hangs", worker=worker.number, pid=worker.process.pid)
            worker.process.kill()
    return ended.result()
