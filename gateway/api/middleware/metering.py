"""
Counting: every request that the app answers, whatever becomes of it, with its final status. Plain
runs are counted where they are answered (`connection/protocol.py`).

Pure ASGI and the outermost layer of ours, so that a body that was refused, a path that does not
exist and a crash are counted like anything else. The layers inside fill in what they know
(`telemetry/observation.py`).
"""

import time
from urllib.parse import parse_qs

from starlette.types import Message, Receive, Scope, Send

from gateway.api.errors import CLIENT_GONE
from gateway.api.middleware.shell import HttpMiddleware
from gateway.telemetry.observation import Observation

ENDPOINTS = {
    "list_models": "list",
    "load_model": "load",
    "run_model": "run",
    "unload_model": "unload",
    "register_model": "register",
    "show_models": "models",
    "show_model": "model",
    "show_versions": "versions",
    "show_version": "version",
}
"""Names of endpoints by their route's function; any other endpoint is named like its function."""
UNMATCHED = "unmatched"
"""The endpoint of a path that no route has."""


class Metering(HttpMiddleware):
    """Observes each request and has it counted once it is over."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Observe one request."""
        began_s = time.perf_counter()
        seen = Observation(status=0)
        scope.setdefault("state", {})["observation"] = seen
        gone = False

        async def receive_counted() -> Message:
            nonlocal gone
            message = await receive()
            seen.bytes_in += len(message.get("body", b""))
            gone = gone or message["type"] == "http.disconnect"
            return message

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                # What is said to nobody is not what was answered.
                seen.status = (seen.status or CLIENT_GONE) if gone else message["status"]
            else:
                seen.bytes_out += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive_counted, send_counted)
        finally:
            # What crashes is answered with 500 by the layer outside of this one.
            seen.status = seen.status or (CLIENT_GONE if gone else 500)
            if seen.status == CLIENT_GONE:
                seen.code = ""
            seen.total_s = time.perf_counter() - began_s
            _name(scope, seen)
            services = getattr(scope["app"].state, "services", None)
            if services is not None:
                services.metrics.record(seen)


def _name(scope: Scope, seen: Observation) -> None:
    """Find the endpoint, and the model that the request names."""
    function = getattr(scope.get("endpoint"), "__name__", UNMATCHED)
    seen.endpoint = ENDPOINTS.get(function, function)
    parameters = scope.get("path_params") or {}
    query = scope["query_string"]
    asked = {}
    if b"name=" in query or b"version=" in query:
        asked = {key: values[0] for key, values in parse_qs(query.decode("latin-1")).items()}
    model = parameters.get("name") or asked.get("name") or asked.get("model_name")
    seen.model = model if isinstance(model, str) else ""
    version = str(parameters.get("version") or asked.get("version") or "")
    if not seen.version and version.isascii() and version.isdecimal():
        seen.version = int(version)
