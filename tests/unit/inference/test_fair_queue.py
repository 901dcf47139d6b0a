"""Whose turn it is, and who is refused."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Overloaded
from gateway.inference.admission import Admission
from gateway.inference.fair_queue import EVERYBODY, FairQueue, Share
from tests.eventually import eventually

GREEDY, LONE, BATCH = Share("greedy"), Share("lone"), Share("batch", batch=True)


def test_lines_take_turns() -> None:
    """A caller with one request waits for one of the other's, not for all of them."""
    queue: FairQueue[str] = FairQueue()
    for number in range(5):
        queue.add(GREEDY, f"g{number}")
    queue.add(LONE, "l0")
    queue.add(LONE, "l1")
    order = [found[1] for _ in range(7) if (found := queue.next()) is not None]
    assert order == ["g0", "l0", "g1", "l1", "g2", "g3", "g4"]
    assert queue.next() is None
    assert len(queue) == 0


def test_batch_work_waits_for_all_others() -> None:
    """As long as somebody else has a request that may go, a batch job has none."""
    queue: FairQueue[str] = FairQueue()
    queue.add(BATCH, "b0")
    queue.add(GREEDY, "g0")
    queue.add(GREEDY, "g1")
    assert [queue.next() for _ in range(3)] == [(GREEDY, "g0"), (GREEDY, "g1"), (BATCH, "b0")]


def test_a_limit_in_flight_holds_up_its_own_line_alone() -> None:
    """Who has as much under way as it may is passed over until one of them ends."""
    queue: FairQueue[str] = FairQueue()
    narrow = Share("narrow", in_flight=1)
    queue.began(narrow)
    queue.add(narrow, "n1")
    queue.add(LONE, "l0")
    assert queue.next() == (LONE, "l0")
    assert queue.next() is None
    queue.ended(narrow)
    assert queue.next() == (narrow, "n1")


def test_beside_others_nobody_has_more_under_way_than_its_part() -> None:
    """Alone a caller takes every place; beside another it has its part, until that one is gone."""
    queue: FairQueue[str] = FairQueue(beside_others=2)
    for _ in range(5):
        assert queue.may_go(GREEDY)
        queue.began(GREEDY)
    queue.began(LONE)
    queue.ended(LONE)
    assert not queue.may_go(GREEDY)
    assert queue.may_go(LONE)
    for _ in range(3):
        queue.ended(GREEDY)
        assert queue.may_go(GREEDY) == (queue.working["greedy"] < 2)
    queue.ended(GREEDY)
    assert queue.may_go(GREEDY)
    for _ in range(300):
        queue.began(GREEDY)
        queue.ended(GREEDY)
    queue.began(GREEDY)
    assert queue.may_go(GREEDY)


def test_the_gateways_own_work_gives_way_to_callers() -> None:
    """Beside a caller it has its part; a caller beside it alone has every place."""
    queue: FairQueue[str] = FairQueue(beside_others=1)
    for _ in range(5):
        assert queue.may_go(EVERYBODY)
        queue.began(EVERYBODY)
    for _ in range(5):
        assert queue.may_go(GREEDY)
        queue.began(GREEDY)
    assert not queue.may_go(EVERYBODY)
    for _ in range(300):
        queue.began(EVERYBODY)
    assert queue.may_go(EVERYBODY)


def test_a_full_queue_makes_room_at_the_end_of_the_longest_line() -> None:
    """The last of the greediest gives way, of batch first; to the greediest itself nobody does."""
    queue: FairQueue[str] = FairQueue()
    for number in range(3):
        queue.add(GREEDY, f"g{number}")
    assert queue.make_room(GREEDY) is None
    assert queue.make_room(LONE) == "g2"
    queue.add(LONE, "l0")
    assert queue.make_room(LONE) is None
    queue.add(BATCH, "b0")
    assert queue.make_room(GREEDY) == "b0"
    assert queue.make_room(BATCH) is None


@given(st.lists(st.sampled_from(["add", "next", "room", "remove"]), max_size=200), st.randoms())
def test_nobody_is_lost_or_served_twice(steps: list[str], random: object) -> None:
    """Whatever comes in leaves once: served, given up, or refused for another."""
    choice = random.choice  # type: ignore[attr-defined]
    queue: FairQueue[int] = FairQueue()
    inside: dict[int, Share] = {}
    for number, step in enumerate(steps):
        share = choice([GREEDY, LONE, BATCH, Share("narrow", 1)])
        if step == "add":
            queue.add(share, number)
            inside[number] = share
        elif step == "next" and (found := queue.next()) is not None:
            assert inside.pop(found[1]) == found[0]
        elif step == "room" and (gone := queue.make_room(share)) is not None:
            assert inside.pop(gone) != share
        elif step == "remove" and inside:
            gone = choice(sorted(inside))
            queue.remove(inside.pop(gone), gone)
        assert len(queue) == len(inside)


async def _run(door: Admission, share: Share, leave: asyncio.Event) -> str:
    async with door.admit(share):
        await leave.wait()
    return share.caller


async def test_a_lone_caller_is_let_into_a_full_queue() -> None:
    """One of the greedy is told 429 in its place, and the lone one is served second."""
    door, leave = Admission(capacity=1, queue=3), asyncio.Event()
    greedy = [asyncio.create_task(_run(door, GREEDY, leave)) for _ in range(4)]
    await eventually(lambda: door.waiting == 3)
    with pytest.raises(Overloaded):
        await _run(door, GREEDY, leave)
    lone = asyncio.create_task(_run(door, LONE, leave))
    refused, _ = await asyncio.wait(greedy, return_when=asyncio.FIRST_COMPLETED)
    assert [type(task.exception()) for task in refused] == [Overloaded]
    leave.set()
    assert await lone == "lone"
    await asyncio.gather(*greedy, return_exceptions=True)
    assert (door.working, door.waiting) == (0, 0)


async def test_places_are_kept_however_waits_end() -> None:
    """Cancelled while it waits, or in the very moment of its turn: no place is lost."""
    door, leave = Admission(capacity=1, queue=10), asyncio.Event()
    first = asyncio.create_task(_run(door, GREEDY, leave))
    await eventually(lambda: door.working == 1)
    waiting = [asyncio.create_task(_run(door, LONE, leave)) for _ in range(4)]
    await eventually(lambda: door.waiting == 4)
    waiting[0].cancel()
    leave.set()
    await first
    # Its turn has come, and it has not run yet.
    waiting[1].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert (door.working, door.waiting) == (0, 0)
    async with door.admit(Share("narrow", in_flight=1)):
        assert door.working == 1
