"""Who sent a request: the caller that authorization found."""

import functools
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
    quota, window_s, remaining, reset_s = left
    return [
        (b"ratelimit-policy", _policy(quota, window_s)),
        (b"ratelimit", b'"requests";r=%d;t=%d' % (remaining, reset_s)),
    ]


@functools.lru_cache(maxsize=256)
def _policy(quota: int, window_s: int) -> bytes:
    return b'"requests";q=%d;w=%d' % (quota, window_s)


async def _caller(request: Request) -> Caller:
    return asked_by(request.scope)


async def _actor(request: Request) -> str:
    return asked_by(request.scope).name


CallerOf = Annotated[Caller, Depends(_caller)]
"""Who asks."""
Actor = Annotated[str, Depends(_actor)]
"""Who asks, for the audit log."""
