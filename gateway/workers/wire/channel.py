"""
The channel between the parent and one worker: calls with answers, and notices without, in order.

Notices are handled as they are read, so that what was sent before an answer is known when the
answer comes.
"""

import asyncio
import contextlib
import itertools
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import structlog

from gateway.background.tasks import TaskSet, log_fault
from gateway.errors import ChannelClosed, GatewayError
from gateway.workers.wire.codec import (
    AnswerFrame,
    CallFrame,
    FailureFrame,
    Frame,
    NoticeFrame,
    decode,
    encode,
)
from gateway.workers.wire.messages import Call, Notice

log = structlog.get_logger(__name__)

_LENGTH = struct.Struct(">I")

N = TypeVar("N", bound=Notice)
C = TypeVar("C", bound=Call[Any])
Answer = TypeVar("Answer")


class Channel:
    """One end. Say what it answers (`on`, `answering`), then `start` it."""

    def __init__(self, end: socket.socket) -> None:
        """
        Args:
            end: One of a pair of stream sockets.
        """
        self.closed = asyncio.Event()
        """Set when the other end is gone."""
        self._end = end
        self._heard: dict[type[Notice], Callable[[Any], None]] = {}
        self._answered: dict[type[Call[Any]], Callable[[Any], Awaitable[Any]]] = {}
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._answering = TaskSet()
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def on(self, kind: type[N], hear: Callable[[N], None]) -> Iterator[None]:
        """Have `hear` called with every notice of a kind, for the length of a block."""
        self._heard[kind] = hear
        try:
            yield
        finally:
            del self._heard[kind]

    @contextlib.contextmanager
    def answering(self, kind: type[C], answer: Callable[[C], Awaitable[object]]) -> Iterator[None]:
        """Answer calls of a kind for the length of a block. At other times they are refused."""
        self._answered[kind] = answer
        try:
            yield
        finally:
            del self._answered[kind]

    async def start(self) -> None:
        """Begin to read. What the other end has sent before is read first."""
        reader, self._writer = await asyncio.open_unix_connection(sock=self._end)
        self._reading = asyncio.create_task(self._read(reader, self._writer))
        self._reading.add_done_callback(log_fault)

    def tell(self, notice: Notice) -> None:
        """Send a notice. Nothing happens if the other end is gone."""
        self._send(NoticeFrame(notice))

    async def ask(self, call: Call[Answer]) -> Answer:
        """
        Send a call and return its answer.

        Raises:
            GatewayError: What the other end raised, or ChannelClosed.
        """
        if self.closed.is_set():
            raise ChannelClosed
        number = next(self._numbers)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        self._send(CallFrame(number, call))
        try:
            return await future
        finally:
            self._asked.pop(number, None)

    async def close(self) -> None:
        """Close this end; calls under way fail. What is being answered goes on to its own end."""
        if self._reading is None:
            self.closed.set()
            self._end.close()
        else:
            self._reading.cancel()
            await asyncio.wait([self._reading])

    def _send(self, frame: Frame) -> None:
        if self._writer is not None and not self.closed.is_set():
            encoded = encode(frame)
            self._writer.writelines((_LENGTH.pack(len(encoded)), encoded))

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                self._handle(decode(await reader.readexactly(length)))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the other process has ended: `closed` says so
        finally:
            self.closed.set()
            writer.close()
            for future in self._asked.values():
                if not future.done():
                    future.set_exception(ChannelClosed())

    def _handle(self, frame: Frame) -> None:
        match frame:
            case NoticeFrame(notice):
                if (hear := self._heard.get(type(notice))) is not None:
                    hear(notice)
            case CallFrame(number, call):
                self._answering.start(self._answer(number, call))
            case AnswerFrame(number, answer):
                if (future := self._asked.get(number)) is not None and not future.done():
                    future.set_result(answer)
            case FailureFrame(number):
                if (future := self._asked.get(number)) is not None and not future.done():
                    future.set_exception(frame.error())

    async def _answer(self, number: int, call: Call[Any]) -> None:
        answer = self._answered.get(type(call))
        try:
            if answer is None:
                raise ChannelClosed  # not open yet, or closing: as good as gone
            result = await answer(call)
        except GatewayError as error:
            self._send(FailureFrame.of(number, error))
        except Exception:
            # The caller must not wait for ever for what failed here.
            log.exception("call_failed", call=type(call).__name__)
            self._send(FailureFrame.of(number, GatewayError("Internal error.")))
        else:
            self._send(AnswerFrame(number, result))
