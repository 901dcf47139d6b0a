"""The wire between parent and worker, over a real socket pair."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from gateway.errors import GatewayError, LinkClosed, ModelRejected, VersionNotFound
from gateway.workers.link import Handlers, Link


@contextlib.asynccontextmanager
async def _linked(handlers: Handlers) -> AsyncIterator[tuple[Link, Link]]:
    near, far = socket.socketpair()
    ends = await Link.open(near, {}), await Link.open(far, handlers)
    try:
        yield ends
    finally:
        for end in ends:
            await end.close()


async def test_what_was_told_before_an_answer_is_known_when_it_comes() -> None:
    """News and answers keep their order."""
    heard: list[int] = []
    near, far = socket.socketpair()
    other: Link

    async def change() -> None:
        for number in range(100):
            other.tell("news", number)

    asker = await Link.open(near, {"news": heard.append})
    other = await Link.open(far, {"change": change})
    await asker.ask("change")
    assert heard == list(range(100))
    await asker.close()
    await other.close()


@pytest.mark.parametrize(
    "error", [VersionNotFound("m", 3), ModelRejected("No.", code="opset_unsupported")], ids=repr
)
async def test_an_error_keeps_its_class_code_and_text(error: GatewayError) -> None:
    """What the other process raises is raised here."""

    async def fail() -> None:
        raise error

    async with _linked({"fail": fail}) as (near, _):
        with pytest.raises(type(error)) as raised:
            await near.ask("fail")
    assert (raised.value.detail, raised.value.code) == (error.detail, error.code)


async def test_calls_to_an_end_that_is_gone_fail() -> None:
    """Neither a call under way nor a later one waits for ever."""
    never = asyncio.Event()

    async def hang() -> None:
        await never.wait()

    async with _linked({"hang": hang}) as (near, far):
        under_way = asyncio.create_task(near.ask("hang"))
        await asyncio.sleep(0)
        await far.close()
        with pytest.raises(LinkClosed):
            await under_way
        with pytest.raises(LinkClosed):
            await near.ask("hang")
        near.tell("hang")
        never.set()
