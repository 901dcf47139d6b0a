"""
The tokens of an issuer. A known one is found by its digest, at once, as long as it lives. A new one
is checked in a thread, before the request goes on; so no request but a token's first waits for a
signature, and none for the issuer but the first of a new key.

The issuer is asked for its keys every few minutes, and out of turn when a token names a key that is
not known; but then no more often than every few seconds, whoever makes up keys' names. While it is
away the last keys stay in force. A key that it takes back takes its tokens with it.
"""

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import structlog

from gateway.access.callers import Caller
from gateway.access.grants import Grant, caller_of, values_of
from gateway.access.issuer import Issuer, IssuerAway
from gateway.access.roles import Role
from gateway.access.signing import (
    Checked,
    KeyUnknown,
    TokenRules,
    VerifyingKey,
    check_token,
)
from gateway.errors import Forbidden, IssuerUnavailable, Overloaded, Unauthenticated

log = structlog.get_logger(__name__)

LONGEST_TOKEN = 16_384
_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*")
_MOST_KNOWN = 10_000
_MOST_CHECKS = 64
_THREADS = 2
_REFETCH_S = 5.0
_FOLLOW_S = 300.0
_FOLLOW_AWAY_S = 15.0


class _Known(NamedTuple):
    caller: Caller
    key: VerifyingKey
    until_s: float


class Tokens:
    """
    Tells who shows a token.

    Args:
        issuer: Who is asked for keys.
        rules: What a token must be.
        grants: What a token's claims give.
        roles_claim: The claim that the grants are about.
        name_claim: The claim that names the subject in the audit log.
        refetch_s: Shortest time between two questions for keys, in seconds.
    """

    def __init__(
        self,
        issuer: Issuer,
        rules: TokenRules,
        grants: Sequence[Grant],
        *,
        roles_claim: str,
        name_claim: str,
        refetch_s: float = _REFETCH_S,
    ) -> None:
        self.issuer = issuer
        self.rules = rules
        self.grants = grants
        self._roles_claim = roles_claim
        self._name_claim = name_claim
        self._refetch_s = refetch_s
        self._keys: tuple[VerifyingKey, ...] = ()
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._fetching: asyncio.Task[None] | None = None
        self._asked_s = float("-inf")
        self._away = True
        self._checks = 0
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="token")

    async def close(self) -> None:
        """Let go of threads and connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self.issuer.close()

    @property
    def give_admin(self) -> bool:
        """Whether some token is an admin's of all models."""
        return any(grant.role is Role.ADMIN and not grant.models for grant in self.grants)

    def is_token(self, shown: str) -> bool:
        """Whether what a caller shows looks like a token; no key of ours does."""
        return shown.startswith("eyJ") and _TOKEN.fullmatch(shown) is not None

    def caller(self, shown: str, now_s: float) -> Caller:
        """
        Tell who shows a token that has been checked.

        Raises:
            Unauthenticated: It was not, or has expired.
            Forbidden: It is good, and gives no role.
        """
        known = self._known.get(_digest(shown))
        if known is None:
            raise Unauthenticated("The token is wrong.", "token_wrong")
        if now_s >= known.until_s:
            raise Unauthenticated("The token has expired.", "token_expired")
        if known.caller.role is None:
            raise Forbidden("The token gives no role here; see OIDC_ROLES.")
        return known.caller

    async def learn(self, shown: str) -> None:
        """
        Check a token, unless it is known.

        Raises:
            Unauthenticated: It is wrong, or not in force.
            IssuerUnavailable: It names a key that is not known, and the issuer cannot be asked.
            Overloaded: Too many are being checked.
        """
        digest = _digest(shown)
        if digest in self._known:
            return
        if len(shown) > LONGEST_TOKEN:
            raise Unauthenticated("The token is wrong.", "token_wrong")
        checked = await self.check(shown, self.rules)
        self._known[digest] = _Known(self.caller_of(checked.claims), checked.key, checked.until_s)
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)

    def caller_of(self, claims: Mapping[str, Any]) -> Caller:
        """Make the caller of a checked token's claims."""
        values = values_of(claims, self._roles_claim)
        return caller_of(self.grants, str(claims["sub"]), self.name_of(claims), values)

    def values_of(self, claims: Mapping[str, Any]) -> frozenset[str]:
        """Read the values that some grant is about."""
        return values_of(claims, self._roles_claim) & {grant.value for grant in self.grants}

    def name_of(self, claims: Mapping[str, Any]) -> str:
        """Name the subject of a checked token."""
        return str(claims.get(self._name_claim) or claims["sub"])

    async def check(self, token: str, rules: TokenRules) -> Checked:
        """
        Check a token in a thread; ask the issuer for a key that is not known.

        Raises:
            Unauthenticated, IssuerUnavailable, Overloaded: As `learn` does.
        """
        try:
            return await self._check(token, rules)
        except KeyUnknown:
            await self._refetch()
        try:
            return await self._check(token, rules)
        except KeyUnknown:
            if self._away:
                raise IssuerUnavailable("The issuer of the token cannot be asked.") from None
            raise Unauthenticated("The token is wrong.", "token_wrong") from None

    async def _check(self, token: str, rules: TokenRules) -> Checked:
        if self._checks >= _MOST_CHECKS:
            raise Overloaded("Too many tokens are being checked; try again.")
        self._checks += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, check_token, token, rules, self._keys)
        finally:
            self._checks -= 1

    async def follow(self) -> None:
        """Keep the keys those of the issuer."""
        while True:
            await self._refetch()
            await asyncio.sleep(_FOLLOW_AWAY_S if self._away else _FOLLOW_S)

    async def _refetch(self) -> None:
        """Ask for the keys, unless that was done a moment ago; of several callers one asks."""
        if self._fetching is None or self._fetching.done():
            if time.monotonic() - self._asked_s < self._refetch_s:
                return
            self._asked_s = time.monotonic()
            self._fetching = asyncio.create_task(self._fetch())
        # Whoever waits may go away; the others' answer still comes.
        await asyncio.shield(self._fetching)

    async def _fetch(self) -> None:
        try:
            keys = await self.issuer.keys()
        except IssuerAway as error:
            self._away = True
            log.warning("oidc_issuer_away", cause=str(error), keys=len(self._keys))
            return
        self._away = False
        if keys != self._keys:
            log.info("oidc_keys", kids=[key.id for key in keys])
        self._keys = keys
        for digest, known in list(self._known.items()):
            if known.key not in keys:
                del self._known[digest]


def _digest(shown: str) -> bytes:
    return hashlib.sha256(shown.encode("utf-8", "surrogatepass")).digest()
