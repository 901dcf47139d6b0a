"""
The keys in force: a snapshot in memory, swapped whole.

Every check compares two keyed hashes in constant time, whatever was shown: the id that a key begins
with chooses what to compare with, and anything else is compared with the bootstrap key, or with a
hash that no key has. So how long a refusal takes says nothing about the keys that there are.

A key that was found right is known by its text until the keys are read again. The table compares
texts only where their 64-bit keyed hashes (SipHash, of a secret of this process) are the same, so
it tells a stranger nothing either.
"""

import hmac
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from gateway.access.callers import ANYBODY, NOBODY, Caller, Limits
from gateway.access.keys import LONGEST_KEY, Pepper, id_of
from gateway.access.roles import Role
from gateway.errors import Unauthenticated

log = structlog.get_logger(__name__)

_MOST_KNOWN = 1024


class TokenVerifier(Protocol):
    """Tells who shows a token (`tokens.py`)."""

    @property
    def give_admin(self) -> bool: ...  # noqa: D102 - whether some token is an admin's
    def is_token(self, shown: str) -> bool: ...  # noqa: D102
    def caller(self, shown: str, now_s: float) -> Caller: ...  # noqa: D102
    async def learn(self, shown: str) -> None: ...  # noqa: D102


class StoredKey(Protocol):
    """A key as it is stored. Times are UTC, in seconds since 1970."""

    @property
    def id(self) -> str: ...  # noqa: D102 - as in the table
    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def role(self) -> str: ...  # noqa: D102
    @property
    def models(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def digest(self) -> bytes: ...  # noqa: D102
    @property
    def pepper(self) -> str: ...  # noqa: D102
    @property
    def previous_digest(self) -> bytes | None: ...  # noqa: D102
    @property
    def previous_until_s(self) -> float | None: ...  # noqa: D102
    @property
    def expires_at_s(self) -> float | None: ...  # noqa: D102
    @property
    def revoked_at_s(self) -> float | None: ...  # noqa: D102
    @property
    def rate_per_s(self) -> float | None: ...  # noqa: D102
    @property
    def in_flight(self) -> int | None: ...  # noqa: D102
    @property
    def batch(self) -> bool: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class _Held:
    """A key, ready to be compared with what a caller shows."""

    caller: Caller
    digest: bytes
    previous_digest: bytes
    previous_until_s: float
    expires_at_s: float
    revoked: bool


class Keyring:
    """
    Tells who shows a key.

    Args:
        pepper: The key of the hashes.
        read: Reads all keys that there are, revoked and expired ones too.
        bootstrap: The first admin's key, from the settings.
        tokens: Tell who shows a token, where an issuer is configured.
    """

    def __init__(
        self,
        pepper: Pepper,
        read: Callable[[], Awaitable[Sequence[StoredKey]]],
        *,
        bootstrap: str | None = None,
        tokens: TokenVerifier | None = None,
    ) -> None:
        self.pepper = pepper
        self._read = read
        self.tokens = tokens
        # Keys can be managed without an admin's key of the table, too.
        self.admin_elsewhere = bootstrap is not None or (tokens is not None and tokens.give_admin)
        self._closed = bootstrap is not None or tokens is not None
        self._keys: dict[str, _Held] = {}
        # Who showed a right key, and until when it is one.
        self._known: dict[str, tuple[Caller, float]] = {}
        self._strangers: frozenset[str] = frozenset()
        # What nobody can show: no hash is known to be of anything.
        self._never = _held(Caller("", "", None), os.urandom(32))
        admin = Caller("bootstrap", "GATEWAY_ADMIN_KEY", Role.ADMIN)
        self._else = self._never if bootstrap is None else _held(admin, pepper.digest(bootstrap))

    @property
    def open(self) -> bool:
        """
        Whether anybody may do anything: nobody has ever made a key, and the settings name none.
        Revoking the last key does not open the gateway again.
        """
        return not self._closed and not self._keys

    async def refresh(self) -> None:
        """
        Read the keys and swap the snapshot.

        Raises:
            StoreUnavailable: The database is away; the last snapshot stays.
        """
        rows = await self._read()
        self._keys = {row.id: _hold(row) for row in rows}
        self._known = {}
        strangers = frozenset(row.name for row in rows if row.pepper != self.pepper.id)
        if strangers - self._strangers:
            log.warning("keys_of_another_secret", keys=sorted(strangers), mend="KEYS_SECRET")
        self._strangers = strangers

    async def learn(self, shown: str | None) -> None:
        """
        Check what is shown, if it is a token that is not known yet. Nothing to do for a key.

        Raises:
            Unauthenticated: The token is wrong, or not in force.
            IssuerUnavailable, Overloaded: It cannot be checked now.
        """
        if shown is not None and self.tokens is not None and self.tokens.is_token(shown):
            await self.tokens.learn(shown)

    def caller(self, shown: str | None, now_s: float) -> Caller:
        """
        Tell who shows a key, or a token that has been learned.

        Args:
            shown: What the caller sent as a key, if anything.
            now_s: UTC, in seconds since 1970.

        Returns:
            `ANYBODY` while the gateway is open, `NOBODY` for a caller without a key.

        Raises:
            Unauthenticated: The key is wrong, expired or revoked; the token was not learned.
            Forbidden: The token is good, and gives no role.
        """
        if self.open:
            return ANYBODY
        if shown is None:
            return NOBODY
        known = self._known.get(shown)
        if known is not None and now_s < known[1]:
            return known[0]
        if self.tokens is not None and self.tokens.is_token(shown):
            return self.tokens.caller(shown, now_s)
        if len(shown) > LONGEST_KEY:
            raise Unauthenticated("The key is wrong.", "key_wrong")
        digest = self.pepper.digest(shown)
        held = self._keys.get(id_of(shown) or "", self._else)
        is_new = hmac.compare_digest(digest, held.digest)
        is_old = hmac.compare_digest(digest, held.previous_digest)
        if not is_new and not (is_old and now_s < held.previous_until_s):
            raise Unauthenticated("The key is wrong.", "key_wrong")
        if held.revoked:
            raise Unauthenticated("The key has been revoked.", "key_revoked")
        if now_s >= held.expires_at_s:
            raise Unauthenticated("The key has expired.", "key_expired")
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        until_s = held.expires_at_s if is_new else min(held.expires_at_s, held.previous_until_s)
        self._known[shown] = held.caller, until_s
        return held.caller


def _held(caller: Caller, digest: bytes) -> _Held:
    return _Held(caller, digest, os.urandom(32), 0.0, float("inf"), revoked=False)


def _hold(row: StoredKey) -> _Held:
    return _Held(
        caller=Caller(
            id=row.id,
            name=f"key {row.name}",
            role=Role(row.role),
            models=tuple(row.models),
            limits=Limits(row.rate_per_s, row.in_flight, row.batch),
        ),
        digest=row.digest,
        previous_digest=row.previous_digest or os.urandom(32),
        previous_until_s=row.previous_until_s or 0.0,
        expires_at_s=float("inf") if row.expires_at_s is None else row.expires_at_s,
        revoked=row.revoked_at_s is not None,
    )
