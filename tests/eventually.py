"""Wait for a fact that no event announces: another process's state, seen from outside."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

POLL_S = 0.02


async def eventually(
    fact: Callable[[], bool] | Callable[[], Awaitable[bool]], *, within_s: float = 15.0
) -> None:
    """Return as soon as `fact` holds; fail if it does not within `within_s` seconds."""
    deadline_s = time.monotonic() + within_s
    while True:
        holds = fact()
        if await holds if inspect.isawaitable(holds) else holds:
            return
        assert time.monotonic() < deadline_s, f"not within {within_s} s"
        await asyncio.sleep(POLL_S)
