"""
Copy a share of the requests to a challenger and compare its answers. No caller waits for it.

A copy is offered after the caller's answer is known and costs the caller a few comparisons. Copies
wait in a queue that is bounded in number and in bytes; when it is full, a copy is dropped and
counted, and the request counts for neither side. A few workers send them, each with a deadline of
its own, so that a challenger which hangs holds the workers and nobody else.

The copy is the same decoded tensor, kept for it where there is room. If there is none, or if the
two versions take different inputs, the challenger's side decodes the image again. On both sides
only the answering itself is timed.
"""

import asyncio
import hashlib
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import structlog

from gateway.errors import GatewayError
from gateway.rollouts.live.counting import scores_distance
from gateway.rollouts.live.recorder import Recorder
from gateway.rollouts.state.traffic import Trial

log = structlog.get_logger(__name__)

_TOP = 5


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
        trial: What the rollout asked of it.
        request_id: Its id.
        encoded: The image file's bytes.
        tensor: What the champion was given, if it could be kept; else the challenger's side
            decodes `encoded`.
        scores: What the champion answered, finite; None if it failed.
        latency_s: How long the champion took; None if it failed.
    """

    trial: Trial
    request_id: str
    encoded: bytes
    tensor: Input | None
    scores: npt.NDArray[np.generic] | None
    latency_s: float | None

    @property
    def size_bytes(self) -> int:
        """How much memory it holds."""
        return len(self.encoded) + (0 if self.tensor is None else self.tensor.size_bytes)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a challenger answered to a copy: finite scores, and how long it took, in seconds."""

    scores: npt.NDArray[np.generic]
    latency_s: float


Ask = Callable[[Copy], Awaitable[Reply]]
"""Sends a copy to its challenger; raises a GatewayError if that fails."""


class Mirror:
    """The queue of copies and the workers that send them."""

    def __init__(
        self,
        recorder: Recorder,
        *,
        workers: int,
        queue: int,
        queue_bytes: int,
        timeout_s: float,
        keep_images: bool,
    ) -> None:
        self._recorder = recorder
        self._workers = workers
        self._limit = queue
        self._limit_bytes = queue_bytes
        self._timeout_s = timeout_s
        self._keep_images = keep_images
        self._waiting: deque[Copy] = deque()
        self._waiting_bytes = 0
        self._arrived = asyncio.Semaphore(0)
        self._tasks: list[asyncio.Task[None]] = []

    def offer(self, copy: Copy) -> None:
        """
        Take a copy, or drop it if too many are waiting. Never waits.

        Args:
            copy: Its tensor is the request's, which lets go of it afterwards.
        """
        held = self._waiting_bytes + copy.size_bytes
        if len(self._waiting) >= self._limit or held > self._limit_bytes:
            self._recorder.counts(copy.trial.id).dropped += 1
            self._remember(copy, None)
            return
        if copy.tensor is not None and not copy.tensor.keep():
            copy = replace(copy, tensor=None)
            held = self._waiting_bytes + copy.size_bytes
        self._waiting.append(copy)
        self._waiting_bytes = held
        self._arrived.release()

    def start(self, ask: Ask) -> None:
        """Begin to send copies."""
        self._tasks = [asyncio.create_task(self._work(ask)) for _ in range(self._workers)]

    async def close(self) -> None:
        """Stop sending; what waits is dropped."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _work(self, ask: Ask) -> None:
        while True:
            await self._arrived.acquire()
            copy = self._waiting.popleft()
            self._waiting_bytes -= copy.size_bytes
            try:
                await self._send(copy, ask)
            except Exception:
                # One copy is lost, and the next must not be.
                log.exception("mirror_failed", rollout=copy.trial.id.rollout)
            finally:
                if copy.tensor is not None:
                    copy.tensor.release()

    async def _send(self, copy: Copy, ask: Ask) -> None:
        reply = None
        try:
            async with asyncio.timeout(self._timeout_s):
                reply = await ask(copy)
        except (GatewayError, TimeoutError) as error:
            log.debug("challenger_failed", rollout=copy.trial.id.rollout, reason=repr(error))
        counts = self._recorder.counts(copy.trial.id)
        if copy.latency_s is None:
            counts.champion.failed()
        else:
            counts.champion.answered(copy.latency_s)
        if reply is None:
            counts.challenger.failed()
        else:
            counts.challenger.answered(reply.latency_s)
        self._remember(copy, None if reply is None else int(np.argmax(reply.scores)))
        if reply is None or copy.scores is None:
            return
        agree = int(np.argmax(reply.scores)) == int(np.argmax(copy.scores))
        counts.pair(agree=agree, distance=scores_distance(copy.scores, reply.scores))
        if not agree and self._recorder.wants_sample(copy.trial.id.rollout):
            # Megabytes to digest would hold up the requests on the event loop.
            digest = await asyncio.to_thread(_digest, copy.encoded)
            self._sample(copy, digest, copy.scores, reply.scores)

    def _remember(self, copy: Copy, challenger_category: int | None) -> None:
        if copy.scores is not None:
            category = int(np.argmax(copy.scores))
            self._recorder.remember_trial(
                copy.trial, copy.request_id, category, challenger_category
            )

    def _sample(
        self,
        copy: Copy,
        digest: str,
        champion: npt.NDArray[np.generic],
        challenger: npt.NDArray[np.generic],
    ) -> None:
        self._recorder.sample(
            {
                "rollout": copy.trial.id.rollout,
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
