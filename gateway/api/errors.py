"""
The one table from errors to HTTP statuses, and the one shape of an error's body.

The nearest class above an error that stands in the table gives its status.
"""

import math
from collections.abc import Mapping

import structlog
from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from gateway import errors
from gateway.api.request_ids import request_id_of
from gateway.telemetry.observation import observation_of

log = structlog.get_logger(__name__)

STATUS_OF: Mapping[type[errors.GatewayError], int] = {
    errors.RequestError: 422,
    errors.ImageTooLarge: 413,
    errors.BodyTooLarge: 413,
    errors.BatchTooLarge: 413,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.HostRefused: 421,
    errors.MediaTypeUnsupported: 415,
    errors.Overloaded: 429,
    errors.Unavailable: 503,
    errors.StoreFull: 507,
    errors.UpstreamFailed: 502,
    errors.DeadlineExceeded: 504,
    errors.StorageFull: 507,
    errors.FormatUnavailable: 501,
    errors.ProtocolUnsupported: 501,
    errors.GatewayError: 500,
}

# What the framework itself refuses, before any of our code runs.
_CODE_OF_STATUS: Mapping[int, str] = {
    400: "request_invalid",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "media_type_unsupported",
    422: "request_invalid",
}

BODY_TOO_LARGE = "The body is larger than the limit."
CLIENT_GONE = 499
"""The status of a request whose caller went away before it was answered, as nginx writes it."""

# How much of what a caller sent is said back where it does not validate.
_EXCERPT_LENGTH = 100
_EXCERPT_MEMBERS = 10


def status_of(error: errors.GatewayError) -> int:
    """Find an error's HTTP status: that of the nearest class in the table."""
    return status_of_class(type(error))


def status_of_class(kind: type[errors.GatewayError]) -> int:
    """Find the HTTP status of a class of errors."""
    return next(STATUS_OF[cls] for cls in kind.__mro__ if cls in STATUS_OF)


def install(app: FastAPI) -> None:
    """Make every error of the app leave in the one shape."""
    app.add_exception_handler(errors.GatewayError, gateway_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _framework_error)
    app.add_exception_handler(ClientDisconnect, _client_gone)
    app.add_exception_handler(Exception, unforeseen)


def _body(request: Request, detail: object, code: str) -> dict[str, object]:
    observation_of(request.scope).code = code
    body = {"detail": detail, "code": code, "request_id": request_id_of(request.scope)}
    if request.scope["path"].startswith("/v2"):
        # Clients of the Open Inference Protocol read this.
        body["error"] = detail if isinstance(detail, str) else "The request does not validate."
    return body


async def gateway_error(request: Request, error: Exception) -> JSONResponse:
    """Answer an error of ours."""
    assert isinstance(error, errors.GatewayError)
    status = status_of(error)
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    observation_of(request.scope).refusal = error.refusal
    level = log.warning if status >= 500 else log.info
    level(
        "request_failed",
        code=error.code,
        status=status,
        detail=error.detail,
        path=request.url.path,
        cause=repr(error.__cause__) if error.__cause__ else None,
    )
    return JSONResponse(_body(request, error.detail, error.code), status, headers)


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    places = [{**place, "input": _excerpt(place.get("input"))} for place in error.errors()]
    undecodable = any(place["type"] == "base64_decode" for place in places)
    code = "image_invalid" if undecodable else "request_invalid"
    log.info("request_failed", code=code, status=422, path=request.url.path)
    return JSONResponse(_body(request, jsonable_encoder(places), code), 422)


def _excerpt(value: object, depth: int = 2) -> object:
    """
    Shorten what a caller sent, to say it back: the places of an error are many, and a body may be
    an image of megabytes. What JSON cannot say (bytes, NaN, half a surrogate pair) becomes text.
    """
    match value:
        case str() | bytes():
            return _beginning(value)
        case bool() | int() | float() | None:
            finite = not isinstance(value, float) or math.isfinite(value)
            return value if finite else str(value)
        case dict() if depth:
            members = list(value.items())[:_EXCERPT_MEMBERS]
            return {_beginning(str(key)): _excerpt(member, depth - 1) for key, member in members}
        case list() | tuple() if depth:
            return [_excerpt(member, depth - 1) for member in value[:_EXCERPT_MEMBERS]]
        case _:
            return "…"


def _beginning(text: str | bytes) -> str:
    begun = text[:_EXCERPT_LENGTH]
    encoded = begun if isinstance(begun, bytes) else begun.encode("utf-8", "backslashreplace")
    more = "…" if len(text) > _EXCERPT_LENGTH else ""
    return encoded.decode("utf-8", "backslashreplace") + more


async def _framework_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = _CODE_OF_STATUS.get(error.status_code, "request_failed")
    log.info("request_failed", code=code, status=error.status_code, path=request.url.path)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        # The framework names the methods of the first route only.
        methods = request.app.state.rulebook.methods(request.scope["path"])
        headers["Allow"] = ", ".join(methods)
    # The framework has words of its own for a body that grew too large as it came.
    detail = BODY_TOO_LARGE if error.status_code == 413 else error.detail
    return JSONResponse(_body(request, detail, code), error.status_code, headers)


async def _client_gone(_request: Request, _error: Exception) -> Response:
    """Answer nobody; the request is counted as one whose caller left."""
    return Response(status_code=CLIENT_GONE)


async def unforeseen(request: Request, error: Exception) -> JSONResponse:
    """Answer what nobody thought of."""
    log.error("request_crashed", path=request.url.path, exc_info=error)
    return JSONResponse(_body(request, "Internal error.", "internal_error"), 500)
