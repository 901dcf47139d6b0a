"""The one table from errors to statuses."""

import re
from collections.abc import Iterator

import pytest

from gateway import errors
from gateway.api.errors import STATUS_OF


def _tree(root: type[errors.GatewayError]) -> Iterator[type[errors.GatewayError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


@pytest.mark.parametrize("error", list(_tree(errors.GatewayError)), ids=lambda cls: cls.__name__)
def test_every_error_has_a_code_a_status_and_a_place_in_the_drawing(
    error: type[errors.GatewayError],
) -> None:
    """No class of the tree is missing from its drawing, and none but the root falls to 500."""
    assert re.fullmatch(r"[a-z_]+", error.code)
    status = next(STATUS_OF[cls] for cls in error.__mro__ if cls in STATUS_OF)
    assert (status == 500) == (error is errors.GatewayError)
    assert errors.__doc__ is not None
    assert error.__name__ in errors.__doc__


@pytest.mark.parametrize("error", list(_tree(errors.GatewayError)), ids=lambda cls: cls.__name__)
def test_what_asks_to_come_back_says_when(error: type[errors.GatewayError]) -> None:
    """429 and 503 carry Retry-After, nothing else does."""
    status = next(STATUS_OF[cls] for cls in error.__mro__ if cls in STATUS_OF)
    assert (error.retry_after_s is not None) == (status in {429, 503})
