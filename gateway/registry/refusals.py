"""The converter's and the validation's codes, as errors of the gateway."""

import contextlib
from collections.abc import Iterator, Mapping

from gateway.converter.errors import ConverterError
from gateway.errors import (
    GatewayError,
    ModelRejected,
    NameConflict,
    NameInvalid,
    RepositoryReadOnly,
    StorageFull,
    VersionConflict,
    VersionInvalid,
)

_CLASSES: Mapping[str, type[GatewayError]] = {
    error.code: error
    for error in (NameInvalid, NameConflict, RepositoryReadOnly, StorageFull, VersionInvalid)
} | {"version_exists": VersionConflict}


def refusal_of(code: str, detail: str) -> GatewayError:
    """Make the error for a code: its own class if it has one, else a rejected model's."""
    known = _CLASSES.get(code)
    return known(detail) if known is not None else ModelRejected(detail, code=code)


@contextlib.contextmanager
def as_refusals() -> Iterator[None]:
    """Let what the converter raises leave the block as the gateway's error of the same code."""
    try:
        yield
    except ConverterError as error:
        raise refusal_of(error.code, str(error)) from error
