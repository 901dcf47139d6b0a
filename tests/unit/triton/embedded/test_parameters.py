"""What the backend reads of a request's parameters."""

from types import ModuleType

import pytest

from tests.backend_source import load_backend_module


@pytest.fixture(scope="module")
def backend() -> ModuleType:
    return load_backend_module("parameters")


@pytest.mark.parametrize("text", ["", "{}", '{"priority":3}'])
def test_nothing_said_is_pixels_among_others(backend: ModuleType, text: str) -> None:
    """A request of another client carries pixels, and is not taken to be alone."""
    assert backend.read_parameters(text) == (0, False)


def test_what_is_said_is_read(backend: ModuleType) -> None:
    """All of it."""
    assert backend.read_parameters('{"encoded_bytes":17,"uncontended":true}') == (17, True)


def test_another_number_is_refused(backend: ModuleType) -> None:
    """What is no number of bytes is no number of bytes."""
    with pytest.raises(ValueError, match="invalid literal"):
        backend.read_parameters('{"encoded_bytes":"a few"}')
