"""
HEAD is GET without a body (RFC 9110, section 9.3.2): so asks who checks that something is there.

The route of GET answers. The connection, which knows what was asked, leaves the body out.
"""

from starlette.types import Receive, Scope, Send

from gateway.api.middleware.shell import HttpMiddleware


class HeadAsGet(HttpMiddleware):
    """What stands inside sees GET where HEAD was asked."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, under the other method if need be."""
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)
