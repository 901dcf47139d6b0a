"""What every middleware of ours is: pure ASGI, for HTTP only."""

from collections.abc import Awaitable, Callable

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HttpMiddleware:
    """ASGI middleware. What is not an HTTP request passes by."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one connection's event stream."""
        if scope["type"] == "http":
            await self.handle(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; by default as the app inside does."""
        await self._app(scope, receive, send)


def before_head(send: Send, change: Callable[[MutableHeaders], Awaitable[None]]) -> Send:
    """Return a `send` that has `change` see the headers of an answer before they are sent."""

    async def send_changed(message: Message) -> None:
        if message["type"] == "http.response.start":
            await change(MutableHeaders(scope=message))
        await send(message)

    return send_changed
