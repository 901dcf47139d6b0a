"""
One transaction for many callers.

What comes while a transaction is being written waits, and is written together in the next one. A
caller that comes alone is written at once; a hundred that come together wait for two commits, not
for a hundred. Nothing waits for a timer.

Source: group commit as databases do it with their logs.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
# So few that a statement may name each of them, and that none waits long for the others.
_AT_ONCE = 1_000


class GroupCommit(Generic[Item, Result]):
    """Writes items in groups, in the order in which they came."""

    def __init__(self, write: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]]) -> None:
        """
        Args:
            write: Writes a group in one transaction, and gives a result for each item, in order.
        """
        self._write = write
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._writing: asyncio.Task[None] | None = None

    async def add(self, item: Item) -> Result:
        """
        Return when the item is committed. A caller that is cancelled leaves its item to be written.

        Raises:
            Exception: Whatever its group's transaction failed with; nothing of it was written.
        """
        result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, result))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())
        return await result

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                count = min(len(self._waiting), _AT_ONCE)
                await self._write_group([self._waiting.popleft() for _ in range(count)])
        finally:
            self._writing = None

    async def _write_group(self, group: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._write([item for item, _ in group])
        except Exception as error:  # noqa: BLE001 - each caller is told
            for _, waiting in group:
                if not waiting.done():
                    waiting.set_exception(error)
        else:
            for (_, waiting), result in zip(group, results, strict=True):
                if not waiting.done():
                    waiting.set_result(result)
