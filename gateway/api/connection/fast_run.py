"""
The shortest way of the one call that counts, past the framework.

A plain run has no parameters and one image for a body: in JSON, as the original contract knows it,
or as it is. The general machinery (routing, dependencies, validation, serialisation) takes longer
for it than Triton for a small image, so such a request is read, answered and counted here;
`protocol.py` hands it over. Anything else about a request, from a query to a misspelt field, is
left to the app, with its validation and its error messages. Both ways end in the same `Runner.run`,
and both say the same.
"""

import re
import time
from typing import NamedTuple

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.types import Scope

from gateway.access.callers import ANYBODY, Caller
from gateway.access.headers import rollout_key, shown_key
from gateway.access.roles import Role
from gateway.api.callers import limit_headers
from gateway.api.connection.framing import BadRequest, Head, Headers
from gateway.api.connection.raw_response import JSON, RawResponse, fault_response
from gateway.api.errors import gateway_error, status_of, unforeseen
from gateway.api.middleware.metering import ENDPOINTS, UNMATCHED
from gateway.api.request_ids import name_request, well_formed_id
from gateway.api.rest.base64_image import decode_base64
from gateway.api.rest.contract import answer_headers
from gateway.api.rest.image_bodies import is_raw
from gateway.errors import GatewayError
from gateway.services import Services
from gateway.telemetry.observation import Observation
from gateway.telemetry.sampled import REFUSALS

# Names that need no decoding; any other name is the app's to find, or not.
_RUN = b"/api/v1/run/"
_UPLOAD = b"/api/v1/register"
_PATH = re.compile(rb"/api/v1/run/([A-Za-z0-9._-]+)")


class PlainRun(NamedTuple):
    """The head of a plain run: its model, whether its body is the image itself, and who asks."""

    model: str
    raw: bool
    caller: Caller


class FastRuns:
    """
    Answers the plain runs of an app.

    Args:
        app: The app; its services are open whenever a request arrives.
        max_body_bytes: Longest body. The app refuses a longer one.
        worker: The number of this process, of one of several.
    """

    def __init__(self, app: FastAPI, *, max_body_bytes: int, worker: int | None = None) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._worker = [(b"x-gateway-worker", b"%d" % worker)] if worker is not None else []

    def plain_run(self, head: Head) -> PlainRun | None:
        """Read a request's head; None if it says that this is no plain run."""
        path = _PATH.fullmatch(head.url)
        if path is None or head.method != b"POST" or head.version != "1.1":
            return None
        if head.expects_continue or self._app.state.tracer is not None:
            # A traced request has a span around all of it: the app's middleware.
            return None
        if head.length is None or head.length > self._max_body_bytes:
            # A body of unknown length is limited while it is read: by the app.
            return None
        kind, raw = head.content_type, False
        if kind is not None:
            raw = is_raw(kind.lower())
            if not raw and kind != JSON and not kind.startswith(JSON + b";"):
                return None
        model = path[1].decode()
        caller = self._caller(model, head.headers)
        return None if caller is None else PlainRun(model, raw, caller)

    def _caller(self, model: str, headers: Headers) -> Caller | None:
        """Tell who may ask the model; None if nobody may, or a browser asks: the app says why."""
        if not self._app.state.sites.plain(headers):
            return None
        services: Services = self._app.state.services
        if services.keyring.open:
            return ANYBODY
        try:
            caller = services.keyring.caller(shown_key(headers), time.time())
            caller.require(Role.INFER)
        except GatewayError:
            return None
        return caller if caller.sees(model) else None

    @staticmethod
    def image_of(run: PlainRun, body: bytes) -> bytes | None:
        """Read the image of a body that has nothing else; None if there is more to be said."""
        if run.raw:
            return body
        try:
            asked = orjson.loads(body)
            if isinstance(asked, dict) and len(asked) == 1 and isinstance(asked["image"], str):
                return decode_base64(asked["image"])
        except (GatewayError, ValueError, KeyError):
            # The app says what is wrong.
            pass
        return None

    async def answer(
        self, scope: Scope, image: bytes, caller: Caller, seen: Observation
    ) -> RawResponse:
        """
        Answer a run.

        Args:
            scope: The request, as ASGI describes it.
            image: The image file's bytes.
            caller: Who asks.
            seen: Says which model; takes note of what is to be counted.
        """
        request_id = name_request(scope)
        structlog.contextvars.bind_contextvars(request_id=request_id)
        scope["state"]["observation"] = seen
        services: Services = self._app.state.services
        services.admission.coming -= 1
        try:
            services.limits.take(caller, time.monotonic())
            answer = await services.runner.run(
                seen.model,
                image,
                request_id=request_id,
                key=rollout_key(scope["headers"]),
                share=services.share_of(caller),
                seen=seen,
            )
        except GatewayError as error:
            reply = _refusal(await gateway_error(Request(scope), error))
        except Exception as error:  # noqa: BLE001 - whatever it was, the caller gets an answer
            reply = _refusal(await unforeseen(Request(scope), error))
        else:
            seen.category = answer.category
            headers = [(b"content-type", JSON), *answer_headers(answer)]
            reply = RawResponse(200, headers, b'{"category":"%s"}' % answer.category.encode())
        seen.status, seen.bytes_out = reply.status, len(reply.body)
        named = [(b"x-request-id", request_id.encode()), *limit_headers(caller, services.limits)]
        return RawResponse(reply.status, [*reply.headers, *named, *self._worker], reply.body)

    def count(self, seen: Observation, began_s: float) -> None:
        """Count a run that is over; `began_s` is of the performance counter."""
        seen.total_s = time.perf_counter() - began_s
        services: Services = self._app.state.services
        services.metrics.record(seen)

    def refusal(self, head: Head) -> GatewayError | None:
        """Say why a run would be refused now, by its head alone; None if it would not."""
        services: Services = self._app.state.services
        error = services.admission.refusal()
        if error is None or head.method != b"POST" or not head.url.startswith(_RUN):
            return None
        model = head.url[len(_RUN) :].partition(b"?")[0].decode("latin-1")
        # Who may not ask hears so, and not how busy the server is.
        if (caller := self._caller(model, head.headers)) is None:
            return None
        return services.admission.refusal(services.share_of(caller))

    @staticmethod
    def streams(head: Head) -> bool:
        """Whether the body goes to disk as it comes."""
        return head.url.startswith(_UPLOAD)

    def announce(self) -> None:
        """Count a run that has been read, until it asks for its place."""
        services: Services = self._app.state.services
        services.admission.coming += 1

    def refused(self, error: GatewayError, head: Head | None) -> RawResponse:
        """Answer a request, or a connection, that is refused for lack of room, and count it."""
        fault = self.fault_of(error)
        if head is None or not head.url.startswith(_RUN):
            return self._counted(fault, Observation(UNMATCHED), None)
        model = head.url[len(_RUN) :].partition(b"?")[0].decode("latin-1")
        seen = Observation(ENDPOINTS["run_model"], model)
        return self._counted(fault, seen, well_formed_id(head.headers))

    @staticmethod
    def fault_of(error: GatewayError) -> BadRequest:
        """Say of an error of ours what a connection answers."""
        return BadRequest(status_of(error), error.code, error.detail, error.refusal)

    def refuse(self, fault: BadRequest, *, counted: bool) -> RawResponse:
        """Answer what is no valid request, and count it unless somebody else does."""
        if counted:
            return self._named(fault_response(fault))
        return self._counted(fault, Observation(UNMATCHED), None)

    def _counted(self, fault: BadRequest, seen: Observation, request_id: str | None) -> RawResponse:
        began_s = time.perf_counter()
        reply = self._named(fault_response(fault, request_id))
        seen.status, seen.code, seen.bytes_out = fault.status, fault.code, len(reply.body)
        seen.refusal = fault.refusal
        self.count(seen, began_s)
        REFUSALS.note(fault.code)
        return reply

    def _named(self, reply: RawResponse) -> RawResponse:
        """Say which worker answers."""
        return RawResponse(reply.status, [*reply.headers, *self._worker], reply.body)


def _refusal(response: Response) -> RawResponse:
    headers = [(name, value) for name, value in response.raw_headers if name != b"content-length"]
    return RawResponse(response.status_code, headers, bytes(response.body))
