"""
Copy a share of the requests to a challenger and compare its answers. No caller waits for it.

A copy is offered after the caller's answer is known and costs the caller a few comparisons. Copies
wait in a queue that is bounded in number and in bytes; when it is full, a copy is dropped and
counted, and the request counts for neither side. A few workers send them, each with a deadline of
its own, so that a challenger which hangs holds the workers and nobody else.

Copies yield to callers: while there is no room, each worker rests after a copy for nineteen times
as long as the copy took, so that copies are a twentieth of a worker's time.

Times are compared like with like: where there is room, a share of the copies is sent to the
champion once more, by the same worker, before or after the challenger by lot. Where there is none,
waiting in queues would be compared and not computing: then only Triton's own measurements count
(`compute.py`).

The copy is the same decoded tensor, kept for it where there is room. If there is none, or if the
two versions take different inputs, the challenger's side decodes the image again. On both sides
only the answering itself is timed.
"""

import asyncio
import hashlib
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import structlog

from gateway.errors import GatewayError
from gateway.rollouts.live.answers import Answers
from gateway.rollouts.live.counting import StepCounts
from gateway.rollouts.live.tally import Tally
from gateway.rollouts.state.classes import translated
from gateway.rollouts.state.traffic import Assignment

log = structlog.get_logger(__name__)

_TOP = 5
# Copies of a full machine rest so many times as long as they took.
_REST = 19.0
# How long a machine counts as full after it was.
_BUSY_S = 1.0
# The share of the copies that the champion answers once more, to compare times.
_TIMED = 0.5


class Input(Protocol):
    """What a version was given, in memory that is lent."""

    @property
    def size_bytes(self) -> int:
        """How much memory it takes."""

    def keep(self) -> bool:
        """Keep it beyond the request, if there is memory to spare."""

    def release(self) -> None:
        """Let go of what was kept."""


@dataclass(frozen=True, slots=True)
class Copy:
    """
    A request that was answered.

    Attributes:
        assignment: What the rollout asked of it.
        request_id: Its id.
        encoded: The image file's bytes.
        tensor: What the champion was given, if it could be kept; else the challenger's side
            decodes `encoded`.
        scores: What the champion answered, finite; None if it failed.
    """

    assignment: Assignment
    request_id: str
    encoded: bytes
    tensor: Input | None
    scores: npt.NDArray[np.generic] | None

    @property
    def size_bytes(self) -> int:
        """How much memory it holds."""
        return len(self.encoded) + (0 if self.tensor is None else self.tensor.size_bytes)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a version answered to a copy: finite scores, and how long it took, in seconds."""

    scores: npt.NDArray[np.generic]
    latency_s: float


Ask = Callable[[Copy, int], Awaitable[Reply]]
"""Sends a copy to a version of its model; raises a GatewayError if that fails."""


class Mirror:
    """The queue of copies and the workers that send them."""

    def __init__(
        self,
        tally: Tally,
        answers: Answers,
        *,
        workers: int,
        queue: int,
        queue_bytes: int,
        timeout_s: float,
        keep_images: bool,
    ) -> None:
        self._tally = tally
        self._answers = answers
        self._workers = workers
        self._limit = queue
        self._limit_bytes = queue_bytes
        self._timeout_s = timeout_s
        self._keep_images = keep_images
        self._waiting: deque[Copy] = deque()
        self._waiting_bytes = 0
        self._arrived = asyncio.Semaphore(0)
        self._tasks: list[asyncio.Task[None]] = []
        self._lots = random.Random()  # noqa: S311 - it draws lots, no secrets
        self._full: Callable[[], bool] = lambda: False
        self._busy_until_s = 0.0

    def offer(self, copy: Copy) -> None:
        """
        Take a copy, or drop it if too many are waiting. Never waits.

        Args:
            copy: Its tensor is the request's, which lets go of it afterwards.
        """
        self.busy()
        held = self._waiting_bytes + copy.size_bytes
        if len(self._waiting) >= self._limit or held > self._limit_bytes:
            self._tally.counts(copy.assignment.id).dropped += 1
            self._answers.end_pair(copy.request_id, None)
            return
        if copy.tensor is not None and not copy.tensor.keep():
            copy = replace(copy, tensor=None)
            held = self._waiting_bytes + copy.size_bytes
        self._waiting.append(copy)
        self._waiting_bytes = held
        self._arrived.release()

    def start(self, ask: Ask, busy: Callable[[], bool]) -> None:
        """
        Begin to send copies.

        Args:
            ask: Sends one.
            busy: Whether callers use the machine up.
        """
        self._full = busy
        self._tasks = [asyncio.create_task(self._work(ask)) for _ in range(self._workers)]

    def busy(self) -> bool:
        """Whether callers use the machine up, or did within the last second."""
        if self._full():
            self._busy_until_s = time.monotonic() + _BUSY_S
        return time.monotonic() < self._busy_until_s

    async def close(self) -> None:
        """Stop sending; what waits is dropped."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _work(self, ask: Ask) -> None:
        while True:
            await self._arrived.acquire()
            copy, began_s = self._waiting.popleft(), time.monotonic()
            self._waiting_bytes -= copy.size_bytes
            answered = False
            try:
                answered = await self._send(copy, ask)
            except Exception:
                # One copy is lost, and the next must not be.
                log.exception("mirror_failed", rollout=copy.assignment.id.rollout)
            finally:
                if copy.tensor is not None:
                    copy.tensor.release()
                self._answers.end_pair(copy.request_id, None)
            if answered and self.busy():
                await asyncio.sleep(_REST * (time.monotonic() - began_s))

    async def _send(self, copy: Copy, ask: Ask) -> bool:
        """Send a copy and count what came of it; whether the challenger answered."""
        assignment = copy.assignment
        champion_s, first, free = None, self._lots.random() < 0.5, not self.busy()
        timed = free and copy.scores is not None and self._lots.random() < _TIMED
        if timed and first:
            champion_s = await self._time(copy, ask, assignment.champion)
        reply = await self._ask(copy, ask, assignment.challenger)
        if timed and not first:
            champion_s = await self._time(copy, ask, assignment.champion)
        counts = self._tally.counts(assignment.id)
        if champion_s is not None and reply is not None and not self.busy():
            counts.champion.timed(champion_s)
            counts.challenger.timed(reply.latency_s)
        if copy.scores is None:
            counts.champion.failed()
            counts.shared += reply is None
        else:
            counts.champion.answered()
        if reply is None:
            counts.challenger.failed()
            return False
        counts.challenger.answered()
        theirs = translated(int(np.argmax(reply.scores)), assignment.classes)
        self._answers.end_pair(copy.request_id, theirs)
        if copy.scores is not None:
            await self._compare(copy, copy.scores, reply.scores, counts)
        return True

    async def _compare(
        self,
        copy: Copy,
        champion: npt.NDArray[np.generic],
        challenger: npt.NDArray[np.generic],
        counts: StepCounts,
    ) -> None:
        agree = counts.compared_scores(champion, challenger, copy.assignment.classes)
        if not agree and self._tally.wants_sample(copy.assignment.id.rollout):
            # Megabytes to digest would hold up the requests on the event loop.
            digest = await asyncio.to_thread(_digest, copy.encoded)
            self._sample(copy, digest, champion, challenger)

    async def _ask(self, copy: Copy, ask: Ask, version: int) -> Reply | None:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await ask(copy, version)
        except (GatewayError, TimeoutError) as error:
            log.debug("copy_failed", rollout=copy.assignment.id.rollout, reason=repr(error))
            return None

    async def _time(self, copy: Copy, ask: Ask, version: int) -> float | None:
        reply = await self._ask(copy, ask, version)
        return None if reply is None else reply.latency_s

    def _sample(
        self,
        copy: Copy,
        digest: str,
        champion: npt.NDArray[np.generic],
        challenger: npt.NDArray[np.generic],
    ) -> None:
        self._tally.sample(
            {
                "rollout": copy.assignment.id.rollout,
                "request_id": copy.request_id,
                "at_s": time.time(),
                "image_digest": digest,
                "champion": _summary(champion),
                "challenger": _summary(challenger),
                "image": copy.encoded if self._keep_images else None,
            }
        )


def _digest(encoded: bytes) -> str:
    return f"sha256:{hashlib.sha256(encoded).hexdigest()}"


def _summary(scores: npt.NDArray[np.generic]) -> dict[str, object]:
    flat = scores.reshape(-1)
    order = np.argsort(-flat.astype(np.float64), kind="stable")[:_TOP]
    return {
        "category": f"{int(order[0]):02d}",
        "scores": {f"{int(index):02d}": float(flat[index]) for index in order},
    }
