"""
The wire between the parent and one worker: calls with answers, and news without, in order.

Frames are pickled: both ends are the same program, and the socket has no name that anybody else
could connect to. News are handled as they are read, so that what was sent before an answer is known
when the answer comes.
"""

import asyncio
import itertools
import pickle
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any, Self

import structlog

from gateway.background import log_fault
from gateway.errors import GatewayError, LinkClosed

log = structlog.get_logger(__name__)

_LENGTH = struct.Struct(">I")
Handlers = Mapping[str, Callable[..., Any]]
"""What the other end may call, by name: coroutine functions for `ask`, others for `tell`."""


class Link:
    """One end. `closed` is set when the other end is gone."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handlers: Handlers
    ) -> None:
        self.closed = asyncio.Event()
        self._reader = reader
        self._writer = writer
        self._handlers = handlers
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._reading = asyncio.create_task(self._read())
        self._reading.add_done_callback(log_fault)

    @classmethod
    async def open(cls, wire: socket.socket, handlers: Handlers) -> Self:
        """Take over one end of a socket pair."""
        reader, writer = await asyncio.open_unix_connection(sock=wire)
        return cls(reader, writer, handlers)

    def tell(self, name: str, *values: Any) -> None:
        """Call a handler of the other end and forget it. Nothing happens if that end is gone."""
        self._send(("tell", 0, name, values))

    async def ask(self, name: str, *values: Any) -> Any:
        """
        Call a handler of the other end and return what it returns.

        Raises:
            GatewayError: What the handler raised, or LinkClosed.
        """
        if self.closed.is_set():
            raise LinkClosed
        number = next(self._numbers)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        self._send(("ask", number, name, values))
        try:
            return await answer
        finally:
            self._asked.pop(number, None)

    async def close(self) -> None:
        """Close this end; calls under way fail. What is being answered goes on to its own end."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    def _send(self, frame: tuple[str, int, str, Any]) -> None:
        if not self.closed.is_set():
            packed = pickle.dumps(frame, protocol=pickle.HIGHEST_PROTOCOL)
            self._writer.writelines((_LENGTH.pack(len(packed)), packed))

    async def _read(self) -> None:
        try:
            while True:
                (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
                frame = pickle.loads(await self._reader.readexactly(length))  # noqa: S301 - see above
                self._handle(*frame)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the other process has ended: `closed` says so
        finally:
            self.closed.set()
            self._writer.close()
            for answer in self._asked.values():
                if not answer.done():
                    answer.set_exception(LinkClosed())

    def _handle(self, kind: str, number: int, name: str, values: Any) -> None:
        if kind == "tell":
            self._handlers[name](*values)
        elif kind == "ask":
            task = asyncio.create_task(self._answer(number, name, values))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
        elif (answer := self._asked.get(number)) is not None and not answer.done():
            if kind == "answer":
                answer.set_result(values)
            else:
                answer.set_exception(_unpacked(values))

    async def _answer(self, number: int, name: str, values: Any) -> None:
        try:
            answer = await self._handlers[name](*values)
        except GatewayError as error:
            self._send(("error", number, "", _packed(error)))
        except Exception:
            # The caller must not wait for ever for what failed here.
            log.exception("call_failed", call=name)
            self._send(("error", number, "", _packed(GatewayError("Internal error."))))
        else:
            self._send(("answer", number, "", answer))


_Packed = tuple[type[GatewayError], tuple[Any, ...], dict[str, Any]]


def _packed(error: GatewayError) -> _Packed:
    """Take an error apart: its class may be made from other arguments than the text."""
    return type(error), error.args, vars(error)


def _unpacked(packed: _Packed) -> GatewayError:
    kind, arguments, values = packed
    error = kind.__new__(kind, *arguments)
    vars(error).update(values)
    return error
