"""Who sent a request: the key in its headers, and the caller whom the door recognised."""

from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import Depends, Request

from gateway.access.callers import Caller

Headers = Iterable[tuple[bytes, bytes]]
"""Names in lower case, and values."""

_BEARER = b"bearer "


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


def asked_by(scope: Any) -> Caller:
    """Return who sent the request of an ASGI scope that came through the door."""
    caller: Caller = scope["state"]["caller"]
    return caller


async def _caller(request: Request) -> Caller:
    return asked_by(request.scope)


async def _actor(request: Request) -> str:
    return asked_by(request.scope).name


CallerOf = Annotated[Caller, Depends(_caller)]
"""Who asks."""
Actor = Annotated[str, Depends(_actor)]
"""Who asks, for the audit log."""
