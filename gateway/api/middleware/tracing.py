"""Tracing of requests; the logs of a traced request carry its `trace_id`."""

import structlog
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from gateway.api.middleware.shell import HttpMiddleware
from gateway.telemetry.observation import observation_of
from gateway.telemetry.tracing import describe, request_span, trace_id_of


class Tracing(HttpMiddleware):
    """Inside of what counts: a span for each request."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Trace one request."""
        tracer = getattr(scope["app"].state, "tracer", None)
        if tracer is None:
            await self._app(scope, receive, send)
            return
        seen = observation_of(scope)
        with request_span(tracer, scope["method"], Headers(scope=scope)) as span:
            seen.trace_id = trace_id_of(span)
            with structlog.contextvars.bound_contextvars(trace_id=seen.trace_id):
                await self._app(scope, receive, send)
            # Only now the route is known; a path of a caller's choosing is no name.
            route = getattr(scope.get("endpoint"), "__name__", "unmatched")
            span.update_name(f"{scope['method']} {route}")
            describe(span, seen)
