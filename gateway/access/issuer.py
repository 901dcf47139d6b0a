"""
Asks the issuer: for its metadata, its keys, and for a token in exchange for a code. Every answer is
bounded in size and time, and no redirect is followed.

Source: OpenID Connect Discovery 1.0; RFC 6749, 4.1.3; RFC 7636 (PKCE).
"""

import asyncio
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from gateway.access.signing import VerifyingKey, read_keys

_TIMEOUT_S = 5.0
_MOST_BYTES = 1 << 20
_METADATA = "/.well-known/openid-configuration"


class IssuerAway(Exception):
    """The issuer did not answer, or not what it should."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """Where the issuer is asked for what; "" for what it does not offer."""

    jwks_url: str
    authorization_url: str
    token_url: str


@dataclass(frozen=True, slots=True)
class Client:
    """The gateway, as the issuer knows it."""

    id: str
    secret: str | None
    redirect_url: str


class Issuer:
    """
    One issuer.

    Args:
        url: Its name, as tokens write it under `iss`.
        jwks_url: Where its keys are, if that is not to be asked of itself.
    """

    def __init__(self, url: str, jwks_url: str | None = None) -> None:
        self._url = url
        self._jwks_url = jwks_url
        self._metadata: Metadata | None = None
        # The environment's proxies and SSL_CERT_FILE hold here, too.
        self._http = httpx.AsyncClient(timeout=_TIMEOUT_S, follow_redirects=False)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def keys(self) -> tuple[VerifyingKey, ...]:
        """
        Read the keys of now.

        Raises:
            IssuerAway: They cannot be had.
        """
        url = self._jwks_url or (await self.metadata()).jwks_url
        try:
            return await asyncio.to_thread(read_keys, await self._ask("GET", url))
        except ValueError as error:
            raise IssuerAway(f"{url}: {error}") from error

    async def metadata(self) -> Metadata:
        """
        Read where the issuer is asked for what; once.

        Raises:
            IssuerAway: It cannot be had, or is of another issuer.
        """
        if self._metadata is None:
            said = await self._ask("GET", self._url.rstrip("/") + _METADATA)
            if not isinstance(said, dict) or said.get("issuer") != self._url:
                raise IssuerAway(f"{self._url} does not call itself so")
            names = ("jwks_uri", "authorization_endpoint", "token_endpoint")
            urls = [str(said.get(name) or "") for name in names]
            secure = self._url.startswith("https://")
            if secure and not all(url.startswith("https://") for url in urls if url):
                raise IssuerAway(f"{self._url} leads away from HTTPS")
            self._metadata = Metadata(*urls)
        return self._metadata

    async def exchange(self, client: Client, code: str, verifier: str) -> str:
        """
        Exchange a code for an ID token.

        Raises:
            IssuerAway: There is none for it.
        """
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": client.redirect_url,
            "client_id": client.id,
            "code_verifier": verifier,
        }
        if client.secret is not None:
            form["client_secret"] = client.secret
        said = await self._ask("POST", (await self.metadata()).token_url, form)
        token = said.get("id_token") if isinstance(said, dict) else None
        if not isinstance(token, str):
            raise IssuerAway("no ID token")
        return token

    async def _ask(self, method: str, url: str, form: dict[str, str] | None = None) -> Any:
        body = bytearray()
        try:
            async with (
                asyncio.timeout(_TIMEOUT_S),
                self._http.stream(method, url, data=form) as answer,
            ):
                if answer.status_code != 200:
                    raise IssuerAway(f"{url} answered {answer.status_code}")
                async for piece in answer.aiter_bytes():
                    body += piece
                    if len(body) > _MOST_BYTES:
                        raise IssuerAway(f"{url} answered more than {_MOST_BYTES} bytes")
            return orjson.loads(body)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError) as error:
            raise IssuerAway(f"{url}: {error!r}") from error
