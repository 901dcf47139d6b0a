"""
One connection on its way from the parent, which accepted it, to the worker that serves it.

The parent keeps its own copy of a connection until the worker has confirmed that it took it, and
hands it to another one if that worker dies before.

Source: unix(7), SCM_RIGHTS; a sequenced packet is one connection, or one confirmation.
"""

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import structlog

from gateway.background.tasks import TaskSet

log = structlog.get_logger(__name__)

_CONNECTION, _TAKEN = b"c", b"k"


class Handover:
    """The parent's end, for one worker."""

    def __init__(self, near: socket.socket) -> None:
        near.setblocking(False)
        self._near = near
        self._unconfirmed: deque[socket.socket] = deque()
        self._passed = 0
        self._open = 0
        self._taken = 0
        asyncio.get_running_loop().add_reader(near, self._confirmed)

    @property
    def load(self) -> tuple[int, int]:
        """How many connections the worker has, as far as is known, and how many it was handed."""
        return self._open + self._passed - self._taken, self._passed

    def note(self, *, open_now: int, taken: int) -> None:
        """Hear how many connections the worker has, and how many it has taken in its life."""
        self._open, self._taken = open_now, taken

    def hand_over(self, connection: socket.socket) -> bool:
        """Hand a connection over; False if the worker takes none now."""
        try:
            socket.send_fds(self._near, [_CONNECTION], [connection.fileno()])
        except OSError:
            return False  # its queue is full, or it has just died
        self._unconfirmed.append(connection)
        self._passed += 1
        return True

    def close(self) -> list[socket.socket]:
        """Hand nothing over any more; return the connections that were not taken."""
        asyncio.get_running_loop().remove_reader(self._near)
        self._confirmed()
        self._near.close()
        return list(self._unconfirmed)

    def _confirmed(self) -> None:
        with contextlib.suppress(OSError):
            while self._near.recv(1):
                self._unconfirmed.popleft().close()
            # The worker is gone; what it did not take is somebody else's in a moment.
            asyncio.get_running_loop().remove_reader(self._near)


class HandoverReceiver:
    """The worker's end."""

    def __init__(self, far: socket.socket) -> None:
        far.setblocking(False)
        self._far = far
        self._opening = TaskSet()
        self.taken = 0
        """Connections taken since the start."""

    def open(
        self,
        protocol: Callable[[], asyncio.Protocol],
        encryption: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Serve every connection that comes with a protocol of its own, and with TLS if told so."""
        asyncio.get_running_loop().add_reader(self._far, self._take, protocol, encryption)

    def close(self) -> None:
        """Take no more."""
        asyncio.get_running_loop().remove_reader(self._far)
        self._far.close()

    def _take(
        self, protocol: Callable[[], asyncio.Protocol], encryption: Mapping[str, Any]
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                said, descriptors, _, _ = socket.recv_fds(self._far, 1, 1)
            except BlockingIOError:
                return
            if not said:
                # The parent is gone; the channel says so too.
                loop.remove_reader(self._far)
                return
            for descriptor in descriptors:
                connection = socket.socket(fileno=descriptor)
                connection.setblocking(False)
                self.taken += 1
                self._opening.start(_serve(connection, protocol, encryption))
            with contextlib.suppress(OSError):
                self._far.send(_TAKEN)


async def _serve(
    connection: socket.socket,
    protocol: Callable[[], asyncio.Protocol],
    encryption: Mapping[str, Any],
) -> None:
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().connect_accepted_socket(protocol, connection, **encryption)
    except ssl.SSLError:
        # A client that speaks no TLS, or has no certificate. Whoever likes can make many of these.
        connection.close()
    except OSError as error:
        connection.close()
        log.info("connection_lost", reason=str(error))
