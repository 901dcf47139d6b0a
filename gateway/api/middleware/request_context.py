"""The id of each request, on its answer and in every log record (`request_ids.py`)."""

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import Receive, Scope, Send

from gateway.api.middleware.shell import HttpMiddleware, before_head
from gateway.api.request_ids import name_request


class RequestContext(HttpMiddleware):
    """Names each request, and puts the name on its answer."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Name one request."""
        request_id = name_request(scope)

        async def put_name(headers: MutableHeaders) -> None:
            headers["X-Request-ID"] = request_id

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._app(scope, receive, before_head(send, put_name))
