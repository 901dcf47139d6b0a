"""Many callers, few transactions: who shares one, and what each is told."""

import asyncio
from collections.abc import Sequence

import pytest

from gateway.errors import StoreUnavailable
from gateway.store.group_commit import GroupCommit


class Writer:
    """Writes when it is let; `groups` is what it was given."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.begun = asyncio.Semaphore(0)
        self.may_write = asyncio.Semaphore(0)

    async def write(self, items: Sequence[int]) -> Sequence[int]:
        self.groups.append(list(items))
        self.begun.release()
        await self.may_write.acquire()
        if 13 in items:
            raise StoreUnavailable("no")
        return [10 * item for item in items]


async def test_what_comes_during_a_write_is_written_together() -> None:
    """A caller alone is written at once; those who come meanwhile share the next, in order."""
    writer = Writer()
    commit = GroupCommit(writer.write)
    calls = [asyncio.create_task(commit.add(1))]
    await writer.begun.acquire()
    calls += [asyncio.create_task(commit.add(number)) for number in (2, 3, 4)]
    await asyncio.sleep(0)
    writer.may_write.release()
    writer.may_write.release()
    assert await asyncio.gather(*calls) == [10, 20, 30, 40]
    assert writer.groups == [[1], [2, 3, 4]]


async def test_a_failed_group_is_told_to_its_callers_and_the_next_is_written() -> None:
    """A fault of the database reaches everybody in the transaction and nobody else."""
    writer = Writer()
    commit = GroupCommit(writer.write)
    first = asyncio.create_task(commit.add(1))
    await writer.begun.acquire()
    failing = [asyncio.create_task(commit.add(number)) for number in (2, 13)]
    await asyncio.sleep(0)
    writer.may_write.release()
    await writer.begun.acquire()
    last = asyncio.create_task(commit.add(5))
    await asyncio.sleep(0)
    writer.may_write.release()
    writer.may_write.release()
    for call in failing:
        with pytest.raises(StoreUnavailable):
            await call
    assert (await first, await last) == (10, 50)


async def test_a_caller_that_goes_away_harms_nobody() -> None:
    """Its item is written with the others', and theirs are answered."""
    writer = Writer()
    commit = GroupCommit(writer.write)
    gone = asyncio.create_task(commit.add(1))
    await writer.begun.acquire()
    gone.cancel()
    stays = asyncio.create_task(commit.add(2))
    await asyncio.sleep(0)
    writer.may_write.release()
    writer.may_write.release()
    assert await stays == 20
    assert writer.groups == [[1], [2]]
