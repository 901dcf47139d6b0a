"""
What is special about an answer of one of several worker processes: it says which, and if it answers
a change, it waits until the others know the change too. A client's next call may reach any of them.
"""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.services import Services

_READS = {"GET", "HEAD", "OPTIONS"}
_RUN = "/api/v1/run/"


class WorkerAnswers:
    """ASGI middleware of worker `number`."""

    def __init__(self, app: ASGIApp, number: int) -> None:
        self._app = app
        self._number = str(number)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        changes = scope["method"] not in _READS and not scope["path"].startswith(_RUN)

        async def send_known(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Gateway-Worker"] = self._number
                # Who was not let in has changed nothing.
                if changes and "caller" in scope["state"]:
                    services: Services = scope["app"].state.services
                    await services.peers.propagate()
            await send(message)

        await self._app(scope, receive, send_known)
