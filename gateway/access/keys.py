"""
What a key looks like, and what is stored of it.

A key reads `ogw_ID_SECRET`: the id, which is no secret and finds the key, and 256 random bits. Only
its HMAC-SHA-256 is stored. The HMAC's own key does not stand in the database, so that whoever can
write there still cannot make a key that works.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field

_PREFIX = "ogw"
_ID_BYTES = 6
_SECRET_BYTES = 32
_KEY = re.compile(r"ogw_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
LONGEST_KEY = 512
"""Characters of the longest key that is looked at; no key of ours comes near."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made. `text` is shown once and never stored."""

    id: str
    text: str = field(repr=False)


def new_key(key_id: str | None = None) -> NewKey:
    """Make a key of 256 random bits; a new secret for an id that there is already, if given."""
    key_id = key_id or secrets.token_hex(_ID_BYTES)
    return NewKey(key_id, f"{_PREFIX}_{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}")


def id_of(text: str) -> str | None:
    """Read the id of a key; None if the text does not look like a key of ours."""
    found = _KEY.fullmatch(text)
    return found[1] if found else None


class Pepper:
    """The HMAC's key. `id` tells it from another one, and says nothing about it."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self.id = hmac.digest(secret, b"id of this secret", hashlib.sha256)[:8].hex()
        # Every request is checked by an HMAC. What depends on the secret alone (RFC 2104, section
        # 4) is hashed once, which makes a check four times as fast.
        padded = _padded(secret)
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded))

    def digest(self, key: str) -> bytes:
        """Return the keyed hash of a key: its HMAC-SHA-256, 32 bytes."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(key.encode("utf-8", "surrogatepass"))
        outer.update(inner.digest())
        return outer.digest()

    def derived(self, purpose: bytes) -> bytes:
        """Return a secret of 32 bytes for another purpose; it says nothing about this one."""
        return hmac.digest(self._secret, b"for " + purpose, "sha256")


def _padded(secret: bytes) -> bytes:
    """Give a secret the length of a block, as HMAC does."""
    size = hashlib.sha256().block_size
    short = secret if len(secret) <= size else hashlib.sha256(secret).digest()
    return short.ljust(size, b"\0")
