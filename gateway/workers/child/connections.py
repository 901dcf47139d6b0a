"""A worker's connections: the parent accepts them and hands them over."""

import asyncio
import socket
from collections.abc import Callable, Mapping
from typing import Any

from gateway.workers.wire.channel import Channel
from gateway.workers.wire.handover import HandoverReceiver
from gateway.workers.wire.messages import Serving


class HandedConnections:
    """
    The worker's `ConnectionSource`.

    Attributes:
        worker: The worker's number.
    """

    def __init__(self, worker: int, parent: Channel, handover: socket.socket) -> None:
        self.worker = worker
        self._parent = parent
        self._receiver = HandoverReceiver(handover)
        self._count: Callable[[], int] | None = None

    @property
    def open_now(self) -> int:
        """How many clients' connections are open."""
        return self._count() if self._count is not None else 0

    @property
    def taken(self) -> int:
        """How many were taken since the start."""
        return self._receiver.taken

    def open(
        self,
        protocol: Callable[[], asyncio.Protocol],
        count: Callable[[], int],
        encryption: Mapping[str, Any],
    ) -> None:
        """Take connections from now on, and tell the parent so."""
        self._count = count
        self._receiver.open(protocol, encryption)
        self._parent.tell(Serving())

    def close(self) -> None:
        """Take no more."""
        self._receiver.close()

    async def ended(self) -> None:
        """Return when the parent is gone. If it was killed, the kernel kills this process too."""
        await self._parent.closed.wait()
