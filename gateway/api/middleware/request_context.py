"""
What every request gets: an id, which every log line of it and its answer carry.

The caller's `X-Request-ID` is kept if it is well formed, so that a trace can cross systems;
anything else is replaced, so that nothing of a caller's choosing ends up in a log.
"""

import re
from random import getrandbits

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_WELL_FORMED = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class RequestContext:
    """ASGI middleware that names each request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Name the request, and put the name on its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = name_request(scope)

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._app(scope, receive, send_named)


def name_request(scope: Scope) -> str:
    """Give a request its id: the caller's, or one of ours."""
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    # An id is no secret: it has to be new, not hard to guess.
    request_id = given.decode() if _WELL_FORMED.fullmatch(given) else f"{getrandbits(128):032x}"
    scope.setdefault("state", {})["request_id"] = request_id
    return request_id


def request_id_of(scope: Scope) -> str:
    """Return the id of a request that came through `RequestContext`."""
    request_id: str = scope["state"]["request_id"]
    return request_id
