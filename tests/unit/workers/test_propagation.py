"""Who knows which change, and how long anybody waits for that."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator

from gateway.workers.parent.pool import WorkerPool
from gateway.workers.parent.propagation import Propagation
from gateway.workers.parent.worker import Worker
from gateway.workers.wire.channel import Channel
from gateway.workers.wire.handover import Handover


@contextlib.asynccontextmanager
async def _pool(size: int) -> AsyncIterator[tuple[WorkerPool, Propagation]]:
    """A pool whose workers are processes that do nothing."""
    pool = WorkerPool(size)
    propagation = Propagation(pool)
    ends = []
    for number in range(1, size + 1):
        process = await asyncio.create_subprocess_exec("sleep", "60")
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel, other = socket.socketpair()
        ends += [far, other]
        pool.workers[number] = Worker(number, process, Handover(near), Channel(channel))
    try:
        yield pool, propagation
    finally:
        for worker in pool:
            worker.process.kill()
            await worker.process.wait()
            worker.handover.close()
            await worker.channel.close()
        for end in ends:
            end.close()


async def test_a_change_is_waited_for_until_every_worker_knows_it() -> None:
    """One that knows it is not enough."""
    async with _pool(2) as (pool, propagation):
        for worker in pool:
            propagation.note(worker, 1, 0)
        propagation.generation, propagation.revision = 2, 5
        waiting = asyncio.create_task(propagation.everywhere())
        propagation.note(pool.workers[1], 2, 5)
        propagation.note(pool.workers[2], 2, 4)
        await asyncio.sleep(0)
        assert not waiting.done()
        propagation.note(pool.workers[2], 2, 5)
        await asyncio.wait_for(waiting, 0.5)


async def test_a_worker_that_has_no_catalog_is_not_waited_for() -> None:
    """It answers no requests yet."""
    async with _pool(1) as (_, propagation):
        propagation.generation = 2
        await asyncio.wait_for(propagation.everywhere(), 0.1)


async def test_a_worker_that_is_late_is_waited_for_once() -> None:
    """A second, and not again before it has said something."""
    async with _pool(1) as (pool, propagation):
        propagation.note(pool.workers[1], 1, 0)
        propagation.generation = 2
        began_s = time.monotonic()
        await propagation.everywhere()
        assert 0.9 < time.monotonic() - began_s < 5
        await asyncio.wait_for(propagation.everywhere(), 0.1)
        propagation.note(pool.workers[1], 1, 0)
        assert not pool.workers[1].silent


async def test_the_end_of_a_worker_is_waited_for_no_longer() -> None:
    """Whoever waits for it goes on at once when it has ended."""
    async with _pool(1) as (pool, propagation):
        worker = pool.workers[1]
        propagation.note(worker, 1, 0)
        propagation.generation = 2
        waiting = asyncio.create_task(propagation.everywhere())
        await asyncio.sleep(0)
        await pool.remove(worker)
        await asyncio.wait_for(waiting, 0.1)
        worker.process.kill()
        await worker.process.wait()
        worker.handover.close()
