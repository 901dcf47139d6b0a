"""The one table from Triton's errors to ours, as a caller of `run` hears them."""

from collections.abc import Mapping, Sequence

from gateway.errors import (
    GatewayError,
    ImageMismatch,
    InferenceFailed,
    Overloaded,
    TritonUnavailable,
)
from gateway.registry.versions import ModelVersion
from gateway.triton.errors import (
    StubLost,
    TritonError,
    TritonNotReady,
    TritonQueueFull,
    TritonRejected,
    TritonSlow,
    TritonUnreachable,
)

_NOT_READY = "Version {version} of {model} is not ready right now."

ERROR_OF: Mapping[type[TritonError], tuple[type[GatewayError], str]] = {
    TritonUnreachable: (TritonUnavailable, _NOT_READY),
    TritonNotReady: (TritonUnavailable, _NOT_READY),
    TritonSlow: (TritonUnavailable, _NOT_READY),
    StubLost: (TritonUnavailable, _NOT_READY),
    TritonQueueFull: (Overloaded, "The queue of model {model} is full."),
    TritonRejected: (
        ImageMismatch,
        "Model {model} does not take this input of shape {shape}: {reason}",
    ),
    TritonError: (InferenceFailed, "Model {model} failed on an input of shape {shape}: {reason}"),
}
"""The nearest class above an error that stands in the table gives the error and its text."""


def error_of(error: TritonError, chosen: ModelVersion, shape: Sequence[int] = ()) -> GatewayError:
    """
    Make the error that a caller hears.

    Args:
        error: What Triton failed with.
        chosen: The version that was asked.
        shape: The input's, as the model was given it.
    """
    kind, text = next(ERROR_OF[cls] for cls in type(error).__mro__ if cls in ERROR_OF)
    return kind(
        text.format(
            model=chosen.model, version=chosen.version, shape=list(shape), reason=error.reason
        )
    )
