"""
The parent's life: `gateway serve --workers N`.

It opens what there must be one of and has its workers serve. On SIGTERM it closes in order: the
workers are not ready, but go on answering for `drain_delay_s`; then no connection is accepted, the
workers finish what they have admitted and end, and Triton ends last.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import structlog

from gateway.control_plane import LocalControlPlane
from gateway.core import open_core
from gateway.settings import Settings
from gateway.triton.loads import LoadStates
from gateway.triton.replicas import Replica, ReplicaSet
from gateway.triton.shared_memory import sweep
from gateway.workers.parent.acceptor import Acceptor
from gateway.workers.parent.calls import WorkerCalls
from gateway.workers.parent.pool import WorkerPool, WorkersFailed
from gateway.workers.parent.propagation import Propagation
from gateway.workers.parent.reports import Reports
from gateway.workers.parent.state_feed import StateFeed
from gateway.workers.parent.worker import Worker

log = structlog.get_logger(__name__)

# On top of the workers' own grace: closing connections, storing what was counted.
_EXIT_MARGIN_S = 5.0


async def serve_with_workers(
    settings: Settings, listener: socket.socket, *, demo: bool, on_started: Callable[[], None]
) -> None:
    """
    Serve by several processes until SIGTERM or SIGINT.

    Args:
        settings: Of all of them together.
        listener: A bound socket.
        demo: Load the demo model if this gateway has never had a model.
        on_started: Called once every worker answers and what should be loaded at start is loaded.

    Raises:
        WorkersFailed: They cannot run here; the first of them has said why.
        Whatever opening the parent's services raises.
    """
    pool = WorkerPool(settings.workers)
    acceptor = Acceptor(listener, pool.handovers)
    opening = asyncio.current_task()
    opened = False

    def give_up() -> None:
        if not opened and opening is not None:
            opening.cancel()

    def clean_up(worker: Worker) -> None:
        acceptor.place(worker.handover.close())
        sweep()

    pool.on_end(clean_up)
    pool.failed.add_done_callback(lambda _failed: give_up())
    stop = _stop_by_signal(pool, give_up)
    try:
        # Starting an interpreter takes longer than starting Triton: side by side.
        pool.start()
        async with _attending(settings, pool, acceptor, demo=demo):
            opened = True
            try:
                await _until_stop(pool, stop, on_started)
            finally:
                await _end_workers(settings, pool, acceptor, stop)
    except asyncio.CancelledError:
        if pool.failed.done() and not stop.done():
            raise WorkersFailed(pool.failed.result()) from None
        if not stop.done():
            raise
    finally:
        await pool.stop(0)


def _stop_by_signal(pool: WorkerPool, give_up: Callable[[], None]) -> asyncio.Future[int]:
    """Return a future of the first SIGINT or SIGTERM, which calls `give_up`, too."""
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[int] = loop.create_future()

    def stop_by(number: int) -> None:
        log.info("stopping", signal=signal.Signals(number).name)
        if stop.done():
            # A second signal does not wait for requests.
            pool.send_signal(number)
        else:
            give_up()
            stop.set_result(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop_by, number)
    return stop


async def _end_workers(
    settings: Settings, pool: WorkerPool, acceptor: Acceptor, stop: asyncio.Future[int]
) -> None:
    """End the workers in order; as long as they take connections, more are accepted."""
    number = stop.result() if stop.done() else signal.SIGINT
    delay_s = settings.drain_delay_s if number == signal.SIGTERM else 0.0
    closing = asyncio.get_running_loop().call_later(delay_s, acceptor.close)
    try:
        await pool.stop(delay_s + settings.shutdown_grace_s + _EXIT_MARGIN_S, number)
    finally:
        closing.cancel()
        acceptor.close()


async def _until_stop(
    pool: WorkerPool, stop: asyncio.Future[int], on_started: Callable[[], None]
) -> None:
    ready = asyncio.create_task(pool.all_ready())
    try:
        either: list[asyncio.Future[Any]] = [stop, ready]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            ready.result()
            on_started()
            either = [stop, pool.failed]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if pool.failed.done():
                await pool.all_ready()
    finally:
        ready.cancel()


@contextlib.asynccontextmanager
async def _attending(
    settings: Settings, pool: WorkerPool, acceptor: Acceptor, *, demo: bool
) -> AsyncIterator[None]:
    """Open what there must be one of, and answer the workers from it."""
    replicas, loads = ReplicaSet(), LoadStates()
    propagation, reports = Propagation(pool), Reports(pool, replicas)
    feed = StateFeed(pool, propagation, reports, replicas=replicas, loads=loads)
    plane = LocalControlPlane(
        settings,
        demo=demo,
        shared_bytes=_none_shared,
        replicas=replicas,
        loads=loads,
        observer=feed,
    )
    async with open_core(settings, plane) as core:
        calls = WorkerCalls(
            settings,
            core,
            pool=pool,
            acceptor=acceptor,
            propagation=propagation,
            reports=reports,
            feed=feed,
            validations=plane.validations,
        )
        pool.attend(calls.attend)
        try:
            yield
        finally:
            await calls.close()


def _none_shared(_replica: Replica) -> int:
    """The parent sends no images."""
    return 0
