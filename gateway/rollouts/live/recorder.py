"""
Record a share of the requests, for replays. Nothing on the path of a request touches the disk: what
is offered waits in memory, within a bound of bytes, until a thread writes it down.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Collection, Sequence
from fnmatch import fnmatchcase

import structlog

from gateway.rollouts.live.recordings import Recorded, Recordings

log = structlog.get_logger(__name__)

_WRITE_EVERY_S = 0.5
_SWEEP_EVERY_S = 5.0
_HELD_BYTES = 32 << 20
_HELD_LABELS = 10_000

Label = tuple[str, str, int]
"""Model, request id, true class."""


class TrafficRecorder:
    """Takes requests and their labels."""

    def __init__(self, recordings: Recordings, *, share: float, models: Sequence[str]) -> None:
        """
        Args:
            recordings: Where they go.
            share: Of the requests, 0 to 1; 0 records nothing.
            models: Patterns of the names of those that are recorded.
        """
        self._recordings = recordings
        self._share = share
        self._models = models
        self._lots = random.Random()  # noqa: S311 - it draws lots, no secrets
        self._held: deque[Recorded] = deque()
        self._held_bytes = 0
        self._labels: deque[Label] = deque(maxlen=_HELD_LABELS)
        self._refused = False

    def offer(self, model: str, version: int, request_id: str, encoded: bytes) -> None:
        """Take an answered request, by lot. Never waits; without memory it is left out."""
        if self._lots.random() >= self._share or not self._is_recorded(model):
            return
        if self._held_bytes + len(encoded) > _HELD_BYTES:
            return
        self._held.append(Recorded(model, version, request_id, encoded))
        self._held_bytes += len(encoded)

    def label(self, model: str, request_id: str, category: int) -> None:
        """Take the true class of a request, in the numbering of the version that answered it."""
        if self._share and self._is_recorded(model):
            self._labels.append((model, request_id, category))

    async def follow(self, models: Callable[[], Collection[str]]) -> None:
        """
        Write down what was taken, and delete what is too old or too much, for ever.

        Args:
            models: Those that exist.
        """
        rounds = 0
        while True:
            if rounds % round(_SWEEP_EVERY_S / _WRITE_EVERY_S) == 0:
                await self._in_thread(lambda: self._recordings.sweep(models()))
            rounds += 1
            await asyncio.sleep(_WRITE_EVERY_S)
            await self.flush()

    async def flush(self) -> None:
        """Write down what was taken so far."""
        held, self._held, self._held_bytes = self._held, deque(), 0
        labels, self._labels = self._labels, deque(maxlen=_HELD_LABELS)
        if held or labels:
            await self._in_thread(lambda: self._write(held, labels))

    def _write(self, held: Collection[Recorded], labels: Collection[Label]) -> None:
        for recorded in held:
            self._recordings.write(recorded)
        for label in labels:
            self._recordings.write_label(*label)

    async def _in_thread(self, work: Callable[[], None]) -> None:
        try:
            await asyncio.to_thread(work)
        except OSError as error:
            if not self._refused:
                log.warning("recording_failed", reason=repr(error))
            self._refused = True
        else:
            self._refused = False

    def _is_recorded(self, model: str) -> bool:
        return any(fnmatchcase(model, pattern) for pattern in self._models)
