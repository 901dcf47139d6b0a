"""Admission: so many inside, so many waiting, the next refused at once."""

import asyncio

import pytest

from gateway.errors import Draining, Overloaded
from gateway.inference.admission import Admission
from tests.eventually import eventually


async def _hold(door: Admission, entered: asyncio.Event, leave: asyncio.Event) -> None:
    async with door.admit():
        entered.set()
        await leave.wait()


async def test_the_next_one_over_both_limits_is_refused() -> None:
    """With every place and the queue taken, admission raises without waiting; then it recovers."""
    door = Admission(capacity=1, queue=1)
    first, second, leave = asyncio.Event(), asyncio.Event(), asyncio.Event()
    inside = asyncio.create_task(_hold(door, first, leave))
    await first.wait()
    waiting = asyncio.create_task(_hold(door, second, leave))
    await eventually(lambda: door.waiting == 1)
    with pytest.raises(Overloaded):
        async with door.admit():
            pass
    leave.set()
    await asyncio.gather(inside, waiting)
    assert (door.working, door.waiting) == (0, 0)
    async with door.admit():
        assert door.working == 1


async def test_one_that_gives_up_waiting_leaves_no_trace() -> None:
    """A cancelled wait gives its place in the queue back."""
    door = Admission(capacity=1, queue=1)
    entered, leave = asyncio.Event(), asyncio.Event()
    inside = asyncio.create_task(_hold(door, entered, leave))
    await entered.wait()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), door.admit():
            pass
    assert door.waiting == 0
    leave.set()
    await inside


async def test_nothing_enters_while_draining() -> None:
    """A stopping server refuses, whatever places are free."""
    door = Admission(capacity=1, queue=1)
    door.draining = True
    with pytest.raises(Draining):
        async with door.admit():
            pass


async def test_what_runs_and_waits_is_known_by_model() -> None:
    """By model: those inside, those that wait; one that was refused or gave up is neither."""
    door, leave = Admission(capacity=1, queue=1), asyncio.Event()

    async def ask(model: str) -> None:
        async with door.admit(model=model):
            await leave.wait()

    inside = asyncio.create_task(ask("a"))
    await eventually(lambda: door.running["a"] == 1)
    waiting = asyncio.create_task(ask("b"))
    await eventually(lambda: door.queued["b"] == 1)
    with pytest.raises(Overloaded):
        await ask("c")
    assert (+door.running, +door.queued) == ({"a": 1}, {"b": 1})
    waiting.cancel()
    leave.set()
    await asyncio.gather(inside, waiting, return_exceptions=True)
    assert not +door.running
    assert not +door.queued
