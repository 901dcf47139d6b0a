"""Signing in and out with a browser, and who one is. Does nothing without OIDC_CLIENT_ID."""

import time
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, Field

from gateway.access.roles import Role
from gateway.api.callers import CallerOf
from gateway.api.cookies import forget_session, keep_session, keep_sign_in, sign_in_cookie
from gateway.api.rest.dependencies import ServicesOf
from gateway.api.rest.parameters import error_responses
from gateway.errors import NotFound, Unauthenticated
from gateway.services import Services

if TYPE_CHECKING:
    from gateway.access.sign_in import SignIn

router = APIRouter(tags=["access"])

_KEPT_S = 600.0
_TEXT = Query(max_length=4096, description="What the issuer says.")
_PRIVATE = {"Cache-Control": "no-store"}


class CallerResponse(BaseModel):
    """Who asks, as the gateway knows them."""

    name: str = Field(description="As the audit log names them.", examples=["key ci"])
    role: Role = Field(description="What they may do.")
    models: list[str] = Field(description="Patterns of the models that exist for them; []: all.")


@router.get("/api/v1/caller", summary="Who am I?", responses=error_responses(503))
async def show_caller(caller: CallerOf) -> CallerResponse:
    """Say who asks: the key, the subject of the token, or who signed in."""
    assert caller.role is not None  # the route asks for one
    return CallerResponse(name=caller.name, role=caller.role, models=list(caller.models))


@router.get(
    "/login",
    summary="Sign in with a browser",
    status_code=302,
    response_class=RedirectResponse,
    responses=error_responses(404, 503),
)
async def begin_login(
    services: ServicesOf,
    to: Annotated[
        str, Query(max_length=1024, description="Where to go afterwards, on this server.")
    ] = "/docs",
) -> RedirectResponse:
    """Send the browser to the issuer. It comes back to `/login/callback`, and then to `to`."""
    sign_in = _required(services)
    begun = await sign_in.begin(to, time.time())
    response = RedirectResponse(begun.url, 302, _PRIVATE)
    keep_sign_in(response, begun.cookie, _KEPT_S, secure=sign_in.secure)
    return response


@router.get(
    "/login/callback",
    summary="Where the issuer sends the browser back to",
    status_code=302,
    response_class=RedirectResponse,
    responses=error_responses(404, 429, 503),
)
async def finish_login(
    request: Request,
    services: ServicesOf,
    state: Annotated[str, _TEXT] = "",
    code: Annotated[str, _TEXT] = "",
    error: Annotated[str, _TEXT] = "",
) -> RedirectResponse:
    """Exchange the code for a session."""
    sign_in = _required(services)
    if error or not code:
        raise Unauthenticated("The issuer did not sign you in.", "sign_in")
    cookie = sign_in_cookie(request.scope["headers"], secure=sign_in.secure) or ""
    done = await sign_in.finish(cookie, state, code, time.time())
    response = RedirectResponse(done.path, 302, _PRIVATE)
    keep_session(response, done.cookie, done.for_s, secure=sign_in.secure)
    return response


@router.post("/logout", summary="Sign out", status_code=204, responses=error_responses(404))
async def logout(services: ServicesOf) -> Response:
    """Have the browser forget its session. The issuer's own session stays."""
    sign_in = _required(services)
    response = Response(status_code=204, headers=_PRIVATE)
    forget_session(response, secure=sign_in.secure)
    return response


def _required(services: Services) -> "SignIn":
    if services.sign_in is None:
        raise NotFound("Nobody signs in here; see OIDC_CLIENT_ID.")
    return services.sign_in
