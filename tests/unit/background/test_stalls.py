"""A loop that stood still knows it."""

import asyncio
import time
from collections.abc import Callable

import pytest
import uvloop

from gateway.background.stalls import own_stall


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_stall_is_seen_before_the_timeout_that_it_causes(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Whoever hears of a timeout knows by then that the loop stood still."""

    async def wait() -> float:
        asyncio.get_running_loop().call_later(0.05, time.sleep, 0.4)
        with own_stall() as stall, pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await asyncio.Event().wait()
        return stall.longest_s

    with asyncio.Runner(loop_factory=make_loop) as runner:
        assert runner.run(wait()) > 0.2


async def test_a_block_that_itself_computes_is_seen() -> None:
    """Also what stands still right at the end counts."""
    with own_stall() as stall:
        await asyncio.sleep(0)
        time.sleep(0.3)  # noqa: ASYNC251 - that is the fault
    assert stall.longest_s > 0.2
