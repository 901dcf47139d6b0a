"""
Work beside the requests: what runs for as long as a stack is open, and tasks that nobody awaits.

A fault that nobody foresaw is logged here, and only here.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from gateway.background.backoff import early_deaths, restart_delay_s

log = structlog.get_logger(__name__)

Work = Callable[[], Coroutine[Any, Any, None]]
"""Starts work that has no end; called again if it failed."""


class TaskSet:
    """
    Tasks that nobody awaits. Each is held until it ends, because the event loop alone would let it
    be collected; a fault is logged.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, object], *, name: str | None = None) -> None:
        """Run `work` beside the caller. The name stands in the log if it fails."""
        self.keep(asyncio.create_task(work, name=name))

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Take over a task that was awaited until now."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(log_fault)

    async def close(self) -> None:
        """Cancel what still runs, and wait for its end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def run_in_background(stack: contextlib.AsyncExitStack, work: Work) -> asyncio.Task[None]:
    """
    Run `work` until the stack closes. A fault is logged and the work starts again, with a growing
    delay: one row that cannot be read must not end what looks after all the others.
    """
    task = asyncio.create_task(_keep_at(work))

    async def stop() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    task.add_done_callback(log_fault)
    stack.push_async_callback(stop)
    return task


async def _keep_at(work: Work) -> None:
    faults = 0
    while True:
        began_s = time.monotonic()
        try:
            await work()
        except Exception:
            faults = early_deaths(faults, time.monotonic() - began_s)
            delay_s = restart_delay_s(faults)
            log.exception("background_task_failed", again_in_s=delay_s)
        else:
            return
        await asyncio.sleep(delay_s)


def log_fault(task: asyncio.Task[Any]) -> None:
    """Log why a task ended, if it was a fault: for `add_done_callback`."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("background_task_failed", task=task.get_name(), exc_info=error)
