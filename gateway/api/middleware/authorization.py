"""
Authorization: who asks, from where, and may they? Checked before anything of the body is read.

Pure ASGI. It checks what a browser says of the page that asks (`api/sites.py`), finds the request's
line in the one table (`api/rules.py`) and the caller by the key, and answers by itself what is
refused. What goes on carries its caller (`api/callers.py`).
"""

import time
from functools import partial
from urllib.parse import parse_qsl

from fastapi import Request
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.access.callers import NOBODY, Caller
from gateway.access.headers import shown_key
from gateway.access.limits import RateLimits
from gateway.access.roles import Role
from gateway.api.callers import limit_headers
from gateway.api.cookies import session_cookie
from gateway.api.errors import gateway_error
from gateway.api.middleware.shell import HttpMiddleware, before_head
from gateway.api.request_ids import request_id_of
from gateway.api.rules import Found, Named, Rule, Rulebook
from gateway.api.sites import Sites, require_own_page
from gateway.errors import Forbidden, GatewayError, NotFound, Unauthenticated
from gateway.services import Services
from gateway.store.audit import ORIGIN, Origin


class Authorization(HttpMiddleware):
    """Lets nobody through who may not."""

    def __init__(self, app: ASGIApp, rulebook: Rulebook, sites: Sites) -> None:
        super().__init__(app)
        self._rulebook = rulebook
        self._sites = sites

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        services: Services = scope["app"].state.services
        found = self._rulebook.find(scope["method"], scope["path"])
        try:
            self._sites.check(scope["method"], scope["headers"])
            caller = await _admit(services, scope, found)
            if caller.limits.rate_per_s is not None:
                send = before_head(send, partial(_tell_limits, caller, services.limits))
                services.limits.take(caller, time.monotonic())
            scope["state"]["caller"] = caller
            client = scope.get("client")
            ORIGIN.set(Origin(client[0] if client else "", request_id_of(scope)))
        except GatewayError as error:
            if found is not None:
                # As the app's router would: what counts and traces looks there.
                scope["endpoint"] = found.route.endpoint
            response = await gateway_error(Request(scope), error)
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)


async def _tell_limits(caller: Caller, limits: RateLimits, headers: MutableHeaders) -> None:
    for name, value in limit_headers(caller, limits):
        headers[name.decode()] = value.decode()


async def _admit(services: Services, scope: Scope, found: Found | None) -> Caller:
    """
    Tell who asks, if they may.

    Raises:
        Unauthenticated, Forbidden: They may not.
        ModelNotFound, ModelNotLoaded: The model is none of theirs.
        NotFound: There is no such route.
        IssuerUnavailable: Nobody can tell now.
    """
    rule = found.rule if found is not None else None
    if rule is not None and rule.who is None:
        return NOBODY
    caller = await _who(services, scope)
    if found is None or rule is None:
        _require_admin(caller)
        return caller
    caller.require(rule.who)
    if rule.model is Named.ALL:
        caller.require_all_models()
    elif caller.models and rule.model in {Named.PATH, Named.QUERY}:
        names = [found.model] if found.model is not None else _models_of(scope, rule)
        for name in names:
            caller.require_model(name, rule.unknown)
    return caller


async def _who(services: Services, scope: Scope) -> Caller:
    """Tell who shows a key, a token, or the cookie of somebody who signed in."""
    shown, now_s = shown_key(scope["headers"]), time.time()
    await services.keyring.learn(shown)
    caller = services.keyring.caller(shown, now_s)
    if caller is NOBODY and services.sign_in is not None:
        cookie = session_cookie(scope["headers"], secure=services.sign_in.secure)
        signed_in = services.sign_in.caller(cookie, now_s) if cookie else None
        if signed_in is not None:
            require_own_page(scope["method"], scope["headers"])
            return signed_in
    return caller


def _models_of(scope: Scope, rule: Rule) -> list[str]:
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    names = [value for name, value in query if name in rule.parameters]
    if not names:
        raise Forbidden("This is about all models unless it names one of those of the key.")
    return names


def _require_admin(caller: Caller) -> None:
    """What stands in no line is for admins; there is most likely nothing at all."""
    if caller.role is None:
        raise Unauthenticated("A key is needed: `Authorization: Bearer KEY` or `X-API-Key`.")
    try:
        caller.require(Role.ADMIN)
    except Forbidden:
        raise NotFound("Not Found") from None
