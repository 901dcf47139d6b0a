"""Who sent a request, by its headers over HTTP or its metadata over gRPC."""

from collections.abc import Iterable

Headers = Iterable[tuple[bytes, bytes]]
"""Names in lower case, and values."""

_BEARER = b"bearer "
_ROLLOUT_KEY = b"x-rollout-key"


def shown_key(headers: Headers) -> str | None:
    """Read the key of `Authorization: Bearer KEY`, else of `X-API-Key`; None without one."""
    named: bytes | None = None
    for name, value in headers:
        if name == b"authorization":
            if value[: len(_BEARER)].lower() == _BEARER:
                return value[len(_BEARER) :].strip().decode("latin-1")
        elif name == b"x-api-key" and named is None:
            named = value.strip()
    return None if named is None else named.decode("latin-1")


def rollout_key(headers: Headers) -> str | None:
    """Name the caller, if it names itself; else each request is on its own."""
    found = next((value for name, value in headers if name == _ROLLOUT_KEY and value), None)
    return found.decode("latin-1") if found else None
