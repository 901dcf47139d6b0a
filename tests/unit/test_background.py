"""Work that looks after something for as long as a gateway runs."""

import asyncio
import contextlib

from structlog.testing import capture_logs

from gateway.background import run_in_background


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
