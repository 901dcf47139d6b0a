"""
Frames to bytes and back: the one place that knows how messages travel.

Frames are pickled. Both ends are the same program, started from the same files, and the socket pair
has no name that anybody else could connect to.
"""

import pickle
from dataclasses import dataclass
from typing import Any

from gateway.errors import GatewayError
from gateway.workers.wire.messages import Call, Notice


@dataclass(frozen=True, slots=True)
class NoticeFrame:
    """A notice."""

    notice: Notice


@dataclass(frozen=True, slots=True)
class CallFrame:
    """A call; `number` stands in its answer too."""

    number: int
    call: Call[Any]


@dataclass(frozen=True, slots=True)
class AnswerFrame:
    """What a call is answered with."""

    number: int
    answer: Any


@dataclass(frozen=True, slots=True)
class FailureFrame:
    """
    The error that a call ended with, taken apart: a class may be made from other arguments than the
    text that it keeps.
    """

    number: int
    kind: type[GatewayError]
    arguments: tuple[Any, ...]
    attributes: dict[str, Any]

    @classmethod
    def of(cls, number: int, error: GatewayError) -> "FailureFrame":
        """Take an error apart."""
        return cls(number, type(error), error.args, vars(error))

    def error(self) -> GatewayError:
        """Put the error together again."""
        error = self.kind.__new__(self.kind, *self.arguments)
        vars(error).update(self.attributes)
        return error


Frame = NoticeFrame | CallFrame | AnswerFrame | FailureFrame


def encode(frame: Frame) -> bytes:
    """Return a frame as bytes."""
    return pickle.dumps(frame, protocol=pickle.HIGHEST_PROTOCOL)


def decode(encoded: bytes) -> Frame:
    """Read a frame that `encode` wrote."""
    frame: Frame = pickle.loads(encoded)  # noqa: S301 - written by this program, see above
    return frame
