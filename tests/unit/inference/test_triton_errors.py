"""What a caller hears of Triton's errors."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway import errors
from gateway.inference.triton_errors import ERROR_OF, error_of
from gateway.triton import errors as triton_errors
from gateway.triton.errors import TritonError

CHOSEN = cast("Any", SimpleNamespace(model="m", version=3))
RETRIED = {"Overloaded", "TritonUnavailable"}


def _family(root: type[TritonError]) -> list[type[TritonError]]:
    return [root, *(cls for child in root.__subclasses__() for cls in _family(child))]


@pytest.mark.parametrize("kind", _family(TritonError))
def test_every_error_of_triton_has_a_counterpart(kind: type[TritonError]) -> None:
    """Nothing of Triton's leaves as it is; who may try again is told so, and the text is clean."""
    text = "[request id: 7] onnx runtime error 2: bad\nsecond line /models/m"
    error = error_of(kind(text), CHOSEN, (1, 2))
    assert isinstance(error, errors.GatewayError)
    assert type(error) is not errors.GatewayError
    assert "m" in error.detail
    assert "second line" not in error.detail
    assert "request id" not in error.detail
    assert (error.retry_after_s is not None) == (type(error).__name__ in RETRIED)


def test_the_nearest_class_decides() -> None:
    """A lost process is 'not ready', although it is also a failed execution."""
    assert isinstance(error_of(triton_errors.StubLost("x"), CHOSEN), errors.TritonUnavailable)
    assert isinstance(error_of(triton_errors.TritonFailed("x"), CHOSEN), errors.InferenceFailed)
    mismatch = error_of(triton_errors.TritonRejected("{odd}"), CHOSEN, (1, 2))
    assert mismatch.detail == "Model m does not take this input of shape [1, 2]: {odd}"
    assert set(ERROR_OF) <= set(_family(TritonError))
