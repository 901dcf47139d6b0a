"""Work that looks after something for as long as a gateway runs."""

import asyncio
import contextlib

from structlog.testing import capture_logs

from gateway.background.tasks import TaskSet, run_in_background


async def test_work_that_fails_is_begun_anew() -> None:
    """An error nobody foresaw costs a round, not everything that the work looks after."""
    faults = iter([KeyError("a row that cannot be read")])
    goes_on = asyncio.Event()

    async def follow() -> None:
        for fault in faults:
            raise fault
        goes_on.set()
        await asyncio.Event().wait()

    async with contextlib.AsyncExitStack() as stack:
        task = run_in_background(stack, follow)
        await goes_on.wait()
        assert not task.done()
    assert task.cancelled()


async def test_work_that_goes_on_failing_waits_longer_and_longer() -> None:
    """What fails at once is begun anew at once a single time."""
    begun = asyncio.Semaphore(0)

    async def follow() -> None:
        begun.release()
        raise KeyError("a row that cannot be read")

    with capture_logs() as logs:
        async with contextlib.AsyncExitStack() as stack:
            run_in_background(stack, follow)
            for _ in range(3):
                await begun.acquire()
    assert [entry["again_in_s"] for entry in logs][:2] == [0.0, 0.5]


async def test_a_task_that_nobody_awaits_fails_in_the_log() -> None:
    """A fault is told once, with the task's name; the others go on until they are cancelled."""
    tasks, goes_on = TaskSet(), asyncio.Event()

    async def fail() -> None:
        raise KeyError("nobody foresaw this")

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            goes_on.set()

    with capture_logs() as logs:
        tasks.start(wait())
        tasks.start(fail(), name="failing")
        await asyncio.sleep(0.01)
        assert not goes_on.is_set()
        await tasks.close()
    assert goes_on.is_set()
    assert [(log["event"], log["task"]) for log in logs] == [("background_task_failed", "failing")]
