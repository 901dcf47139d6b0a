"""
Connections on their way from the parent, which accepts them, to the worker that serves them.

With a listener of its own each worker would get what the kernel's hash deals it (SO_REUSEPORT), and
a worker that dies takes those with it that wait in its queue. With one listener that all accept
from, whoever wakes first takes a whole burst, and clients keep their connections for hours. So the
parent accepts, and hands each connection to the worker that has the fewest; it keeps its own copy
until the worker has said that it took it, and hands it to another one if that worker dies before.

Nothing of a request passes through the parent: a hand-over costs some 0.1 ms once a connection.

Source: unix(7), SCM_RIGHTS; a sequenced packet is one connection, or one confirmation.
"""

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable, Iterable

import structlog

from gateway.background import log_fault

log = structlog.get_logger(__name__)

_BACKLOG = 2048
_AT_ONCE = 64
_PAUSE_S = 0.1


class Door:
    """The parent's end of one worker's door."""

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
        """How many connections the worker has, as far as is known; and how many it was handed."""
        return self._open + self._passed - self._taken, self._passed

    def note(self, *, open_now: int, taken: int) -> None:
        """Hear how many connections the worker has, and how many it has taken in its life."""
        self._open, self._taken = open_now, taken

    def pass_on(self, connection: socket.socket) -> bool:
        """Hand a connection over; False if the worker takes none now."""
        try:
            socket.send_fds(self._near, [b"c"], [connection.fileno()])
        except OSError:
            return False  # its queue is full, or it has just died
        self._unconfirmed.append(connection)
        self._passed += 1
        return True

    def close(self) -> list[socket.socket]:
        """Close the door; return the connections that were not taken."""
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


class Reception:
    """Accepts connections, and hands each to the least busy door."""

    def __init__(self, listener: socket.socket, doors: Callable[[], Iterable[Door]]) -> None:
        """
        Args:
            listener: Bound; it listens once it is opened.
            doors: Those that take connections now.
        """
        listener.setblocking(False)
        self._listener = listener
        self._doors = doors
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
        """Find another door for connections whose worker died before it took them."""
        for connection in connections:
            if not self._place(connection):
                connection.close()

    def _place(self, connection: socket.socket) -> bool:
        doors = sorted(self._doors(), key=lambda door: door.load)
        return any(door.pass_on(connection) for door in doors)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            if not any(True for _ in self._doors()):
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


class Entrance:
    """The worker's end of its door."""

    def __init__(self, far: socket.socket) -> None:
        far.setblocking(False)
        self._far = far
        self._opening: set[asyncio.Task[None]] = set()
        self._protocol: Callable[[], asyncio.Protocol] | None = None
        self.taken = 0
        """Connections taken since the start."""

    def open(self, protocol: Callable[[], asyncio.Protocol]) -> None:
        """Serve every connection that comes with a protocol of its own."""
        self._protocol = protocol
        asyncio.get_running_loop().add_reader(self._far, self._take)

    def close(self) -> None:
        """Take no more."""
        asyncio.get_running_loop().remove_reader(self._far)
        self._far.close()

    def _take(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                said, descriptors, _, _ = socket.recv_fds(self._far, 1, 1)
            except BlockingIOError:
                return
            if not said:
                # The parent is gone; the link says so, too.
                loop.remove_reader(self._far)
                return
            for descriptor in descriptors:
                connection = socket.socket(fileno=descriptor)
                connection.setblocking(False)
                self.taken += 1
                task = loop.create_task(self._serve(connection))
                self._opening.add(task)
                task.add_done_callback(self._opening.discard)
                task.add_done_callback(log_fault)
            with contextlib.suppress(OSError):
                self._far.send(b"k")

    async def _serve(self, connection: socket.socket) -> None:
        assert self._protocol is not None, "not open"
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
        except OSError as error:
            connection.close()
            log.info("connection_lost", reason=str(error))
