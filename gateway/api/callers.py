"""Who sent a request: the key in its headers, and the caller that authorization found."""

import time
from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import Depends, Request

from gateway.access.callers import Caller
from gateway.access.limits import RateLimits
from gateway.inference.fair_queue import EVERYBODY, Share

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
    """Return who sent the request of an ASGI scope that was authorized."""
    caller: Caller = scope["state"]["caller"]
    return caller


def share_of(caller: Caller, limits: RateLimits) -> Share:
    """Tell what a caller may have of the places for runs."""
    if not caller.id:
        return EVERYBODY
    return Share(caller.id, limits.in_flight(caller), caller.limits.batch)


def limit_headers(caller: Caller, limits: RateLimits) -> list[tuple[bytes, bytes]]:
    """Say what is left of a caller's rate; nothing for one without."""
    left = limits.look(caller, time.monotonic())
    if left is None:
        return []
    return [
        (b"ratelimit-policy", b'"requests";q=%d;w=%d' % (left.quota, left.window_s)),
        (b"ratelimit", b'"requests";r=%d;t=%d' % (left.remaining, left.reset_s)),
    ]


async def _caller(request: Request) -> Caller:
    return asked_by(request.scope)


async def _actor(request: Request) -> str:
    return asked_by(request.scope).name


CallerOf = Annotated[Caller, Depends(_caller)]
"""Who asks."""
Actor = Annotated[str, Depends(_actor)]
"""Who asks, for the audit log."""
