"""
What is the same for every call: who asks and whether they may, the request's id, its trace, its
count, and the shape of an error.

An error's details are the text that HTTP has under `detail`; its `code`, and when to try again, are
trailing metadata. Every call's `x-request-id` is in both kinds of metadata.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import structlog
from grpc import StatusCode
from grpc.aio import ServicerContext
from opentelemetry.trace import Tracer

from gateway.access.callers import Caller
from gateway.access.headers import Headers, shown_key
from gateway.access.roles import Role
from gateway.errors import GatewayError, ModelNotFound, ModelNotLoaded
from gateway.grpc_api.statuses import HTTP_STATUS_OF, status_of
from gateway.services import Services
from gateway.store.audit import ORIGIN, Origin
from gateway.telemetry.observation import Observation
from gateway.telemetry.request_ids import new_request_id, well_formed
from gateway.telemetry.tracing import describe, request_span, trace_id_of

log = structlog.get_logger(__name__)

_REQUEST_ID = "x-request-id"


@dataclass(slots=True)
class Rpc:
    """
    One call that is being answered.

    Attributes:
        headers: Its metadata, names in lower case.
        request_id: The caller's `x-request-id` if it is well formed, else one of ours.
        caller: Who asks; known once they were let in.
        seen: What is counted of it.
        telling: Metadata of the answer.
    """

    services: Services
    context: Any
    headers: Headers
    request_id: str
    caller: Caller
    seen: Observation
    telling: list[tuple[str, str]] = field(default_factory=list)


class Method(NamedTuple):
    """
    A call of the protocol.

    Attributes:
        work: Makes the answer.
        who: The role that it asks for; None for everybody.
        model: The field of the request that names a model, which has to be one of the caller's; ""
            for none.
        unknown: How a model that is none of the caller's looks: as one that does not exist.
        every_model: It is about all models if it names none, and then not for keys of some.
    """

    work: Callable[[Rpc, Any], Awaitable[Any]]
    who: Role | None
    model: str = ""
    unknown: type[ModelNotFound | ModelNotLoaded] = ModelNotLoaded
    every_model: bool = False


class Calls:
    """Answers calls, each by its method."""

    def __init__(self, services: Services, tracer: Tracer | None) -> None:
        self._services = services
        self._tracer = tracer

    def unary(self, name: str, method: Method) -> Callable[[Any, Any], Awaitable[Any]]:
        """Make the handler of a call with one request and one answer."""

        async def handle(request: Any, context: ServicerContext[Any, Any]) -> Any:
            with self._counted(name, context) as call:
                try:
                    async with self._shielded(call):
                        call.seen.bytes_in = request.ByteSize()
                        await self._let_in(call, method, request)
                        answer = await method.work(call, request)
                        call.seen.bytes_out = answer.ByteSize()
                        await context.send_initial_metadata(_metadata(call))
                        return answer
                except GatewayError as error:
                    await _end(call, error)

        return handle

    def streaming(self, name: str, method: Method, wrap: Any) -> Callable[[Any, Any], Any]:
        """
        Make the handler of a call with many requests, each of which is answered in its turn.

        Args:
            name: The call's.
            method: Answers one request.
            wrap: Makes the streamed message of an answer, or of an error.
        """

        async def handle(
            requests: AsyncIterator[Any], context: ServicerContext[Any, Any]
        ) -> AsyncIterator[Any]:
            await context.send_initial_metadata(())
            async for request in requests:
                with self._counted(name, context) as call:
                    try:
                        async with self._shielded(call):
                            call.seen.bytes_in = request.ByteSize()
                            await self._let_in(call, method, request)
                            answer = wrap(request, await method.work(call, request), None)
                    except GatewayError as error:
                        _note(call, error)
                        answer = wrap(request, None, error)
                    call.seen.bytes_out = answer.ByteSize()
                    yield answer

        return handle

    @contextlib.contextmanager
    def _counted(self, name: str, context: Any) -> Iterator[Rpc]:
        """Name, trace and count one request."""
        began_s, headers = time.perf_counter(), headers_of(context)
        given = next((value for key, value in headers if key == _REQUEST_ID.encode()), b"")
        request_id = well_formed(given) or new_request_id()
        endpoint = "grpc" + re.sub("([A-Z])", r"_\1", name).lower()
        seen = Observation(endpoint=endpoint, status=0)
        call = Rpc(self._services, context, headers, request_id, _NOBODY_YET, seen)
        try:
            with (
                self._traced(name, call),
                structlog.contextvars.bound_contextvars(request_id=request_id),
            ):
                ORIGIN.set(Origin(_address(context), request_id))
                yield call
                seen.status = seen.status or 200
        except asyncio.CancelledError:
            # The caller went away, or its deadline passed.
            seen.status, seen.code = HTTP_STATUS_OF[StatusCode.CANCELLED], ""
            raise
        finally:
            seen.status = seen.status or 500
            seen.total_s = time.perf_counter() - began_s
            self._services.metrics.record(seen)

    @contextlib.contextmanager
    def _traced(self, name: str, call: Rpc) -> Iterator[None]:
        if self._tracer is None:
            yield
            return
        carried = {key.decode("latin-1"): value.decode("latin-1") for key, value in call.headers}
        with request_span(self._tracer, f"grpc {name}", carried) as span:
            call.seen.trace_id = trace_id_of(span)
            with structlog.contextvars.bound_contextvars(trace_id=call.seen.trace_id):
                yield
            describe(span, call.seen)

    @contextlib.asynccontextmanager
    async def _shielded(self, call: Rpc) -> AsyncIterator[None]:
        """Let nothing out but errors of ours."""
        try:
            yield
        except GatewayError:
            raise
        except Exception as error:
            log.exception("request_crashed", path=call.seen.endpoint)
            raise GatewayError("Internal error.") from error

    async def _let_in(self, call: Rpc, method: Method, request: Any) -> None:
        """
        Tell who asks, if they may.

        Raises:
            Unauthenticated, Forbidden, RateLimited: They may not.
            IssuerUnavailable: Nobody can tell now.
            ModelNotFound, ModelNotLoaded: The model is none of theirs.
        """
        model = getattr(request, method.model) if method.model else ""
        call.seen.model = model
        if method.who is None:
            return
        shown = shown_key(call.headers)
        await self._services.keyring.learn(shown)
        caller = self._services.keyring.caller(shown, time.time())
        caller.require(method.who)
        if method.every_model and not model:
            caller.require_all_models()
        if model:
            caller.require_model(model, method.unknown)
        if caller.limits.rate_per_s is not None:
            self._services.limits.take(caller, time.monotonic())
        call.caller = caller


_NOBODY_YET = Caller("", "nobody", None)


def headers_of(context: Any) -> Headers:
    """Read the metadata of a call as headers."""
    return tuple(
        (key.encode(), value if isinstance(value, bytes) else value.encode("latin-1", "replace"))
        for key, value in context.invocation_metadata() or ()
    )


def _address(context: Any) -> str:
    """Read the caller's address out of gRPC's spelling: `ipv4:127.0.0.1:40000`."""
    kind, _, rest = str(context.peer()).partition(":")
    return rest.rpartition(":")[0].strip("[]") if kind in {"ipv4", "ipv6"} else ""


def _metadata(call: Rpc) -> tuple[tuple[str, str], ...]:
    return ((_REQUEST_ID, call.request_id), *call.telling)


def _note(call: Rpc, error: GatewayError) -> StatusCode:
    status = status_of(error)
    call.seen.status, call.seen.code = HTTP_STATUS_OF[status], error.code
    call.seen.refusal = error.refusal
    level = log.warning if call.seen.status >= 500 else log.info
    level(
        "request_failed",
        code=error.code,
        status=status.name,
        detail=error.detail,
        path=call.seen.endpoint,
        cause=repr(error.__cause__) if error.__cause__ else None,
    )
    return status


async def _end(call: Rpc, error: GatewayError) -> None:
    """End a call with an error. Raises what gRPC ends a handler with."""
    status, metadata = _note(call, error), [*_metadata(call), ("code", error.code)]
    if error.retry_after_s is not None:
        metadata.append(("retry-after", str(int(error.retry_after_s + 0.999))))
    await call.context.abort(status, error.detail, tuple(metadata))
