"""Who sent a request: the caller that authorization found."""

import time
from typing import Annotated, Any

from fastapi import Depends, Request

from gateway.access.callers import Caller
from gateway.access.limits import RateLimits


def asked_by(scope: Any) -> Caller:
    """Return who sent the request of an ASGI scope that was authorized."""
    caller: Caller = scope["state"]["caller"]
    return caller


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
