"""
What a browser is told about our answers: not to guess types, and, of pages, to run no script of
others, to send nothing elsewhere, and to be shown in no frame.

Source: OWASP, HTTP Security Response Headers Cheat Sheet.
"""

from starlette.datastructures import MutableHeaders
from starlette.types import Receive, Scope, Send

from gateway.api.middleware.shell import HttpMiddleware, before_head

# The pages of /docs and /redoc have their scripts and styles written into them.
_PAGE = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; worker-src 'self' blob:; connect-src 'self'; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}


class PageHeaders(HttpMiddleware):
    """Puts them on answers; a header that is there already stays."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._app(scope, receive, before_head(send, _tell))


async def _tell(headers: MutableHeaders) -> None:
    headers.setdefault("X-Content-Type-Options", "nosniff")
    if headers.get("content-type", "").startswith("text/html"):
        for name, value in _PAGE.items():
            headers.setdefault(name, value)
