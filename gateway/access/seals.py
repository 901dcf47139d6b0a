"""
What a browser keeps for us in a cookie: readable by it, signed by us, good for a time.

A seal names its purpose, so that what was made for one cookie cannot be shown as another.
"""

import base64
import binascii
import hmac
from collections.abc import Mapping
from typing import Any

import orjson

_LONGEST = 4096


class Seals:
    """Makes and reads them. `secret`: of 32 bytes, the same in every process."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def seal(self, purpose: str, content: Mapping[str, Any], *, until_s: float) -> str:
        """Sign a content until a time (UTC, in seconds since 1970)."""
        written = orjson.dumps({**content, "until_s": until_s})
        text = base64.urlsafe_b64encode(written).rstrip(b"=")
        return f"{text.decode()}.{self._sign(purpose, text)}"

    def open(self, purpose: str, sealed: str, now_s: float) -> dict[str, Any] | None:
        """Return the content; None if the seal is not ours, of another purpose, or too old."""
        text, _, signature = sealed.rpartition(".")
        if len(sealed) > _LONGEST or not sealed.isascii():
            return None
        if not hmac.compare_digest(signature, self._sign(purpose, text.encode())):
            return None
        try:
            padded = text + "=" * (-len(text) % 4)
            content: dict[str, Any] = orjson.loads(base64.urlsafe_b64decode(padded))
        except (ValueError, binascii.Error):
            return None
        return content if now_s < content["until_s"] else None

    def _sign(self, purpose: str, text: bytes) -> str:
        message = purpose.encode() + b"\0" + text
        return hmac.digest(self._secret, message, "sha256").hex()
