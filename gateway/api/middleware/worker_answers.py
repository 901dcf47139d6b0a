"""
What is special about an answer of one of several worker processes. It says which one, and if it
answers a change, it waits until the others know the change too: a client's next call may reach any
of them.
"""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.api.middleware.shell import HttpMiddleware, before_head
from gateway.services import Services

_READS = {"GET", "HEAD", "OPTIONS"}
_QUESTIONS = ("/api/v1/run/", "/v2/models/", "/v2/repository/index")


class WorkerAnswers(HttpMiddleware):
    """Middleware of worker `number`."""

    def __init__(self, app: ASGIApp, number: int) -> None:
        super().__init__(app)
        self._number = str(number)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        changes = scope["method"] not in _READS and not scope["path"].startswith(_QUESTIONS)

        async def wait_for_others(headers: MutableHeaders) -> None:
            headers["X-Gateway-Worker"] = self._number
            # Who was not let in has changed nothing.
            if changes and "caller" in scope["state"]:
                services: Services = scope["app"].state.services
                await services.peers.propagate()

        await self._app(scope, receive, before_head(send, wait_for_others))
