"""
The framework's limit on bodies answers a declared length over the limit itself, in plain text and
past every handler. This middleware gives that answer the one shape.
"""

import orjson
from starlette.datastructures import MutableHeaders
from starlette.types import Message, Receive, Scope, Send

from gateway.api.errors import BODY_TOO_LARGE
from gateway.api.middleware.shell import HttpMiddleware
from gateway.api.request_ids import request_id_of
from gateway.telemetry.observation import observation_of


class BodyLimitErrors(HttpMiddleware):
    """A plain-text 413 becomes JSON with detail, code and request_id."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on but the bare 413."""
        replacing = False

        async def send_shaped(message: Message) -> None:
            nonlocal replacing
            if message["type"] == "http.response.start" and message["status"] == 413:
                headers = MutableHeaders(scope=message)
                replacing = headers.get("content-type", "").startswith("text/plain")
                if replacing:
                    observation_of(scope).code = "body_too_large"
                    headers["content-type"] = "application/json"
                    headers["content-length"] = str(len(_body(scope)))
            elif replacing and message["type"] == "http.response.body":
                message = {**message, "body": _body(scope), "more_body": False}
            await send(message)

        await self._app(scope, receive, send_shaped)


def _body(scope: Scope) -> bytes:
    body = {
        "detail": BODY_TOO_LARGE,
        "code": "body_too_large",
        "request_id": request_id_of(scope),
    }
    if scope["path"].startswith("/v2"):
        body["error"] = body["detail"]
    return orjson.dumps(body)
