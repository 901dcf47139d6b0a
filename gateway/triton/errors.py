"""
How a Triton fails, in words of ours: made of gRPC statuses, of HTTP statuses and, where those say
nothing, of its texts.
"""

import asyncio
import contextlib
import re
from collections.abc import Iterator
from http import HTTPStatus

from tritonclient.utils import InferenceServerException

_NOT_DECODED = "image not decoded"
_REGION_UNKNOWN = "Unable to find shared memory region"
# Triton says 500, of a request that it cannot read.
_UNREADABLE = ("Unable to parse", "Unable to set", "failed to get request params")
_UNKNOWN = "Request for unknown model"
_EXECUTION = "onnx runtime error"
_REQUEST_ID = re.compile(r"^\[request id: [A-Za-z0-9._-]*\] ")
_LAYERS = re.compile(
    r"^(\[request id: [^\]]*\] )?(onnx runtime error( \d+)?: )?"
    r"(\[ONNXRuntimeError\] : \d+ : \w+ : )?"
)
_LONGEST_REASON = 400


class TritonError(Exception):
    """
    Triton refused or failed.

    TritonError
    ├── TritonUnreachable     no answer at all: the process or the way to it is gone
    │   └── TritonSilent      no answer to a control call by its deadline
    ├── TritonNotReady        it answers, but not for this model or version
    ├── TritonSlow            no answer in many times the usual time, while others could answer
    ├── TritonQueueFull       the model's queue is at its limit
    ├── TritonRejected        it says that the request is wrong (4xx)
    │   └── TritonNotDecoded  its backend leaves this image to be decoded by the gateway
    └── TritonFailed          the model, or Triton, failed (5xx)
        └── StubLost          the process that runs the model is gone or stuck
    """

    @property
    def reason(self) -> str:
        """What was said, in one line, without the names of the layers that it came through."""
        first = str(self).strip().partition("\n")[0][:_LONGEST_REASON]
        return _LAYERS.sub("", first) or "no reason given"


class TritonUnreachable(TritonError):
    """No answer: connection refused, reset, or timed out below the request's deadline."""


class TritonSilent(TritonUnreachable):
    """The connection stands, and no answer to a control call came by its deadline."""


class TritonNotReady(TritonError):
    """The model or the version is not ready on this replica."""


class TritonSlow(TritonError):
    """An inference takes many times as long as the version's usually do."""


class TritonQueueFull(TritonError):
    """The model's queue on this replica is full, or the request waited in it for too long."""


class TritonRejected(TritonError):
    """Triton, or onnxruntime in it, says that the request is at fault."""


class TritonNotDecoded(TritonRejected):
    """The image that the request carries cannot be decoded there."""


class TritonFailed(TritonError):
    """Execution failed."""


class StubLost(TritonFailed):
    """The backend process of an instance does not answer; Triton does not restart it."""


@contextlib.contextmanager
def control_errors() -> Iterator[None]:
    """
    Raise what a control call fails with as a TritonError.

    Closing the channel cancels the calls under way, from inside: without a translation that would
    end, unheard, whatever task waits for one. A task that was itself cancelled still is.
    """
    try:
        yield
    except InferenceServerException as error:
        raise _control_error(error) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise TritonUnreachable("the connection was closed") from error


def _control_error(error: InferenceServerException) -> TritonError:
    status, message = str(error.status()), str(error.message())
    if status == "StatusCode.DEADLINE_EXCEEDED":
        return TritonSilent(message)
    if status in {"StatusCode.UNAVAILABLE", "StatusCode.CANCELLED"}:
        return TritonUnreachable(message)
    return TritonFailed(message)


def inference_error(status: int, message: str) -> TritonError:
    """Make an error of what an inference was answered with: its HTTP status and its text."""
    if "is not healthy" in message or "Stub process" in message:
        return StubLost(message)
    if (
        "is not ready" in message
        or "not at ready state" in message
        or "no available versions" in message
    ):
        return TritonNotReady(message)
    if "Exceeds maximum queue size" in message or "Request timeout expired" in message:
        return TritonQueueFull(message)
    if status == HTTPStatus.NOT_FOUND:
        return TritonNotReady(message)
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return (TritonNotDecoded if _NOT_DECODED in message else TritonRejected)(message)
    return TritonFailed(message)


def says_region_unknown(message: str) -> bool:
    """Whether Triton does not have the shared memory that a request names; by how it begins."""
    return _REQUEST_ID.sub("", message).startswith(_REGION_UNKNOWN)


def forwarded_error(status: int, message: str) -> TritonError:
    """
    Make an error of what a caller's own request was answered with. The caller's words may stand in
    the message, so what counts is how it begins.
    """
    text = _REQUEST_ID.sub("", message)
    if text.startswith(_NOT_DECODED):
        return TritonNotDecoded(message)
    refused = status < HTTPStatus.INTERNAL_SERVER_ERROR and not text.startswith(_UNKNOWN)
    if refused or text.startswith(_UNREADABLE):
        return TritonRejected(message)
    if text.startswith(_EXECUTION):
        return TritonFailed(message)
    return inference_error(status, message)
