"""Work that goes on for as long as a stack is open."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

import structlog

log = structlog.get_logger(__name__)


def run_in_background(
    stack: contextlib.AsyncExitStack, work: Coroutine[Any, Any, None]
) -> asyncio.Task[None]:
    """Run `work` until the stack closes; if it ends by a fault, that is logged."""
    task = asyncio.create_task(work)

    async def stop() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    task.add_done_callback(log_fault)
    stack.push_async_callback(stop)
    return task


def log_fault(task: asyncio.Task[Any]) -> None:
    """Log why a task ended, if it was a fault: for `add_done_callback`."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("background_task_failed", exc_info=error)
