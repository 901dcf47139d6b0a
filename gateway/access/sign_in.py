"""
A person signs in with a browser: authorization code with PKCE. What is between the two steps, and
the session at the end, are sealed cookies; nothing is kept here.

Source: OpenID Connect Core 1.0, 3.1; RFC 7636; RFC 9700 (best current practices).
"""

import asyncio
import base64
import hashlib
import hmac
import secrets
from dataclasses import replace
from typing import NamedTuple
from urllib.parse import urlencode

import structlog

from gateway.access.callers import Caller
from gateway.access.grants import caller_of
from gateway.access.issuer import Client, IssuerAway
from gateway.access.seals import Seals
from gateway.access.tokens import Tokens
from gateway.errors import Forbidden, IssuerUnavailable, Overloaded, Unauthenticated

log = structlog.get_logger(__name__)

UNDER_WAY_S = 600.0
_SESSION, _UNDER_WAY = "session", "sign-in"
_MOST_EXCHANGES = 8
_HOME = "/docs"


class Begun(NamedTuple):
    """Where the browser goes, and what it keeps until it is back."""

    url: str
    cookie: str


class SignedIn(NamedTuple):
    """The session's cookie, how long it is good, and where the browser wanted to go."""

    cookie: str
    for_s: float
    path: str


class SignIn:
    """
    Signs people in.

    Args:
        tokens: Checks the ID tokens, and says what they give.
        client: The gateway, as the issuer knows it.
        seals: Of the cookies.
        scopes: What is asked of the issuer.
        session_s: How long a session is good, in seconds.
    """

    def __init__(
        self, tokens: Tokens, client: Client, seals: Seals, *, scopes: str, session_s: float
    ) -> None:
        self._tokens = tokens
        self._client = client
        self._seals = seals
        self._scopes = scopes
        self._session_s = session_s
        self._rules = replace(tokens.rules, audiences=(client.id,))
        self._exchanges = asyncio.Semaphore(_MOST_EXCHANGES)

    @property
    def secure(self) -> bool:
        """Whether browsers reach the gateway by HTTPS alone."""
        return self._client.redirect_url.startswith("https://")

    async def begin(self, path: str, now_s: float) -> Begun:
        """
        Begin: send the browser to the issuer.

        Args:
            path: Where it wants to go afterwards; a path of ours, or it is not taken.
            now_s: UTC, in seconds since 1970.

        Raises:
            IssuerUnavailable: The issuer cannot be asked where that is.
        """
        try:
            endpoint = (await self._tokens.issuer.metadata()).authorization_url
        except IssuerAway as error:
            raise IssuerUnavailable("The issuer cannot be asked.") from error
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        challenge = hashlib.sha256(verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": self._client.id,
            "redirect_uri": self._client.redirect_url,
            "scope": self._scopes,
            "state": state,
            "nonce": nonce,
            "code_challenge": base64.urlsafe_b64encode(challenge).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        kept = {"state": state, "nonce": nonce, "verifier": verifier, "path": _own_path(path)}
        cookie = self._seals.seal(_UNDER_WAY, kept, until_s=now_s + UNDER_WAY_S)
        return Begun(f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}", cookie)

    async def finish(self, cookie: str, state: str, code: str, now_s: float) -> SignedIn:
        """
        Finish: the browser is back with a code.

        Args:
            cookie: What it kept.
            state, code: What the issuer gave it.
            now_s: UTC, in seconds since 1970.

        Raises:
            Unauthenticated: It is not the browser that began, or the token is not for it.
            Forbidden: The person has no role here.
            IssuerUnavailable, Overloaded: Not now.
        """
        kept = self._seals.open(_UNDER_WAY, cookie, now_s)
        if kept is None or not hmac.compare_digest(state.encode(), kept["state"].encode()):
            raise Unauthenticated("This sign-in was not begun here, or too long ago.", "sign_in")
        if self._exchanges.locked():
            raise Overloaded("Too many people are signing in; try again.")
        async with self._exchanges:
            try:
                token = await self._tokens.issuer.exchange(self._client, code, kept["verifier"])
            except IssuerAway as error:
                raise IssuerUnavailable("The issuer gave no token.") from error
        checked = await self._tokens.check(token, self._rules)
        if not hmac.compare_digest(str(checked.claims.get("nonce")), str(kept["nonce"])):
            raise Unauthenticated("The token is of another sign-in.", "sign_in")
        caller = self._tokens.caller_of(checked.claims)
        if caller.role is None:
            raise Forbidden("You have no role here; see OIDC_ROLES.")
        log.info("signed_in", caller=caller.name, role=caller.role)
        session = {
            "subject": str(checked.claims["sub"]),
            "name": self._tokens.name_of(checked.claims)[:200],
            "values": sorted(self._tokens.values_of(checked.claims)),
        }
        sealed = self._seals.seal(_SESSION, session, until_s=now_s + self._session_s)
        return SignedIn(sealed, self._session_s, kept["path"])

    def caller(self, cookie: str, now_s: float) -> Caller | None:
        """Tell whose session a cookie is; None if it is none, or is over."""
        session = self._seals.open(_SESSION, cookie, now_s)
        if session is None:
            return None
        # What the values give is what the settings say now.
        values = frozenset(session["values"])
        return caller_of(self._tokens.grants, session["subject"], session["name"], values)


def _own_path(path: str) -> str:
    """Return a path of this gateway; the first page in place of what may lead elsewhere."""
    plain = path.isascii() and path.isprintable() and "\\" not in path
    return path if plain and path.startswith("/") and not path.startswith("//") else _HOME
