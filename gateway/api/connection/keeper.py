"""
What the connections of a process share: how many there may be, how long each may be silent, how
much memory their bodies take, and how fast they are refused.
"""

import math
from collections.abc import Set
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """
    Limits of one process.

    Attributes:
        connections: How many are open at once.
        head_bytes: Greatest size of a request's head.
        head_s: How long a head may take to come.
        idle_s: How long a connection may wait for its next request.
        body_start_s: How long a body may stand still, at its start and later.
        body_bytes_per_s: Least rate of a body.
        unread_s: How long an answer may wait until the client reads on.
        body_memory_bytes: Memory for all bodies that have come and are not answered.
        refusals_per_s: Faster than this, connections that were refused are not read for a while.
    """

    connections: int = 4096
    head_bytes: int = 64 * 1024
    head_s: float = 10.0
    idle_s: float = 75.0
    body_start_s: float = 20.0
    body_bytes_per_s: float = 1024.0
    unread_s: float = 30.0
    body_memory_bytes: int = 512 * 1024 * 1024
    refusals_per_s: float = 1000.0


class Kept(Protocol):
    """
    A connection, as it is kept.

    Attributes:
        idle: It waits for a request, and no byte of one has come.
    """

    idle: bool

    @property
    def late_at_s(self) -> float:
        """When it will have been silent for too long; infinite while we owe the next byte."""

    def end_late(self, now_s: float) -> None:
        """End it, because it was silent for too long."""

    def end_idle(self) -> None:
        """End it, because another one needs the place."""

    def let_go(self) -> None:
        """Make the answer that is under way, or the next one, its last."""


class BodyShare:
    """What one request holds of the memory for bodies."""

    __slots__ = ("_bytes", "_keeper")

    def __init__(self, keeper: "Keeper") -> None:
        self._keeper = keeper
        self._bytes = 0

    def take(self, size: int) -> bool:
        """Take so many bytes more; False if that is too much for all of them together."""
        keeper = self._keeper
        if keeper.body_bytes + size > keeper.limits.body_memory_bytes:
            return False
        keeper.body_bytes += size
        self._bytes += size
        return True

    def release(self) -> None:
        """Give everything back."""
        self._keeper.body_bytes -= self._bytes
        self._bytes = 0


class Keeper:
    """
    Looks after the connections of a process.

    Attributes:
        limits: What it holds them to.
        body_bytes: Memory that bodies take now.
        draining: The server is about to stop: every answer is the last one of its connection.
        evicted: Idle connections that were closed because others needed their place.
    """

    def __init__(self, limits: ConnectionLimits | None = None) -> None:
        self.limits = limits or ConnectionLimits()
        self.body_bytes = 0
        self.draining = False
        self.evicted = 0
        self._next_refusal_s = 0.0

    def make_place(self, connections: Set[Kept]) -> bool:
        """Close idle connections if there are too many; False if there is no place for one more."""
        excess = len(connections) + 1 - self.limits.connections
        if excess <= 0:
            return True
        # Several at once: to find the oldest is to look at all of them.
        several = max(excess, self.limits.connections // 16)
        idle = sorted((c for c in connections if c.idle), key=lambda c: c.late_at_s)[:several]
        for connection in idle:
            connection.end_idle()
        self.evicted += len(idle)
        return len(idle) >= excess

    def end_late(self, connections: Set[Kept], now_s: float) -> None:
        """End every connection that was silent for too long."""
        for connection in [c for c in connections if c.late_at_s < now_s]:
            connection.end_late(now_s)

    def drain(self, connections: Set[Kept]) -> None:
        """Make the next answer of every connection its last."""
        self.draining = True
        for connection in connections:
            connection.let_go()

    def rest_after_refusal_s(self, now_s: float) -> float:
        """
        Tell how long a connection that was just refused is not read.

        A client that waits before it tries again, as it is told, notices nothing. Those that do not
        wait are slowed down together, so that refusing them never takes more than a small part of
        the time. Their requests wait in the kernel meanwhile.
        """
        self._next_refusal_s = max(now_s, self._next_refusal_s) + 1.0 / self.limits.refusals_per_s
        return max(0.0, self._next_refusal_s - now_s - _UNNOTICED_S)


_UNNOTICED_S = 0.02
NEVER_S = math.inf
"""When a connection is late that waits for us."""
