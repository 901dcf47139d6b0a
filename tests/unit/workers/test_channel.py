"""The channel between parent and worker, over a real socket pair."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from gateway.errors import ChannelClosed, GatewayError, ModelRejected, VersionNotFound
from gateway.workers.wire.channel import Channel
from gateway.workers.wire.messages import Hello, Knows, Propagate, SyncFolder, WorkerReady


@contextlib.asynccontextmanager
async def _channels() -> AsyncIterator[tuple[Channel, Channel]]:
    near, far = (Channel(end) for end in socket.socketpair())
    for end in (near, far):
        await end.start()
    try:
        yield near, far
    finally:
        for end in (near, far):
            await end.close()


async def test_what_was_told_before_an_answer_is_known_when_it_comes() -> None:
    """News and answers keep their order."""
    heard: list[int] = []
    async with _channels() as (asker, other):

        async def change(_asked: SyncFolder) -> None:
            for number in range(100):
                other.tell(Knows(number, 0))

        with (
            asker.on(Knows, lambda notice: heard.append(notice.generation)),
            other.answering(SyncFolder, change),
        ):
            await asker.ask(SyncFolder())
            assert heard == list(range(100))


async def test_what_was_sent_before_an_end_is_started_is_heard() -> None:
    """A worker speaks long before its parent has opened what it answers from."""
    near_end, far_end = socket.socketpair()
    near, far = Channel(near_end), Channel(far_end)
    await near.start()
    near.tell(WorkerReady())
    asked = asyncio.create_task(near.ask(Propagate()))
    await asyncio.sleep(0)
    heard: list[WorkerReady] = []

    async def answer(_asked: Propagate) -> None:
        assert heard == [WorkerReady()]

    with far.on(WorkerReady, heard.append), far.answering(Propagate, answer):
        await far.start()
        await asked
    await near.close()
    await far.close()


@pytest.mark.parametrize(
    "error", [VersionNotFound("m", 3), ModelRejected("No.", code="opset_unsupported")], ids=repr
)
async def test_an_error_keeps_its_class_code_and_text(error: GatewayError) -> None:
    """What the other process raises is raised here."""

    async def fail(_asked: SyncFolder) -> None:
        raise error

    async with _channels() as (near, far):
        with far.answering(SyncFolder, fail), pytest.raises(type(error)) as raised:
            await near.ask(SyncFolder())
    assert (raised.value.detail, raised.value.code) == (error.detail, error.code)


async def test_a_call_that_nobody_answers_is_refused() -> None:
    """An end that is opening or closing keeps nobody waiting."""

    async def answer(_asked: SyncFolder) -> None:
        """Answer."""

    async with _channels() as (near, far):
        with pytest.raises(ChannelClosed):
            await near.ask(Hello())
        with far.answering(SyncFolder, answer):
            await near.ask(SyncFolder())
        with pytest.raises(ChannelClosed):
            await near.ask(SyncFolder())


async def test_calls_to_an_end_that_is_gone_fail() -> None:
    """Neither a call under way nor a later one waits for ever."""
    never = asyncio.Event()

    async def hang(_asked: SyncFolder) -> None:
        await never.wait()

    async with _channels() as (near, far):
        with far.answering(SyncFolder, hang):
            under_way = asyncio.create_task(near.ask(SyncFolder()))
            await asyncio.sleep(0)
            await far.close()
            with pytest.raises(ChannelClosed):
                await under_way
            with pytest.raises(ChannelClosed):
                await near.ask(SyncFolder())
            near.tell(WorkerReady())
            never.set()
