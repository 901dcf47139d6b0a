"""
Accepts the connections of all workers.

With a listener of its own (SO_REUSEPORT) each worker would get what the kernel's hash deals it, and
a worker that dies would take with it those that wait in its queue. With one listener that all
accept from, whoever wakes first takes a whole burst, and clients keep their connections for hours.
So the parent accepts, and hands each connection to the worker that has the fewest
(`wire/handover.py`).

Nothing of a request passes through the parent: a hand-over costs about 0.1 ms once a connection.
"""

import asyncio
import socket
from collections.abc import Callable, Iterable

import structlog

from gateway.workers.wire.handover import Handover

log = structlog.get_logger(__name__)

_BACKLOG = 2048
_AT_ONCE = 64
_PAUSE_S = 0.1


class Acceptor:
    """Accepts connections, and hands each to the worker that has the fewest."""

    def __init__(self, listener: socket.socket, workers: Callable[[], Iterable[Handover]]) -> None:
        """
        Args:
            listener: Bound; it listens once it is opened.
            workers: The ways to those that take connections now.
        """
        listener.setblocking(False)
        self._listener = listener
        self._workers = workers
        self._is_open = False
        self._accepting = False

    def open(self) -> None:
        """Take connections from now on; and again, after there was nobody to take them."""
        if not self._is_open:
            self._is_open = True
            self._listener.listen(_BACKLOG)
        self._resume()

    def close(self) -> None:
        """Take no more; what is in the kernel's queue is refused."""
        self._pause()
        self._is_open = False
        self._listener.close()

    def place(self, connections: Iterable[socket.socket]) -> None:
        """Find another worker for connections whose worker died before it took them."""
        for connection in connections:
            if not self._place(connection):
                connection.close()

    def _place(self, connection: socket.socket) -> bool:
        ways = sorted(self._workers(), key=lambda way: way.load)
        return any(way.hand_over(connection) for way in ways)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            if not any(True for _ in self._workers()):
                # They wait in the kernel's queue until a worker is there again.
                self._pause_for(_PAUSE_S)
                return
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                # Too many open files, or a connection that ended while it waited.
                log.warning("connection_not_accepted", reason=str(error))
                self._pause_for(_PAUSE_S)
                return
            if not self._place(connection):
                log.warning("connection_refused", reason="no worker took it")
                connection.close()

    def _pause_for(self, pause_s: float) -> None:
        self._pause()
        asyncio.get_running_loop().call_later(pause_s, self._resume)

    def _pause(self) -> None:
        if self._accepting:
            self._accepting = False
            asyncio.get_running_loop().remove_reader(self._listener)

    def _resume(self) -> None:
        if self._is_open and not self._accepting:
            self._accepting = True
            asyncio.get_running_loop().add_reader(self._listener, self._accept)
