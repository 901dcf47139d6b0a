"""
Base64 as the original contract reads it, at the speed of memory.

What is outside the alphabet (line breaks, blanks, quotes around the text) is skipped, and the first
complete padding ends the text: that is `base64.b64decode` of the standard library. Text that is
clean, as nearly all is, takes the SIMD path, which knows no leniency and needs none.
"""

import base64
from typing import Literal

import pybase64
from pydantic import EncoderProtocol
from pydantic_core import PydanticCustomError

from gateway.errors import ImageInvalid

_STANDARD = bytes.maketrans(b"-_", b"+/")
# The first bytes of JPEG, PNG, GIF, WebP, BMP and TIFF, as far as base64 shows them alone.
_IMAGE_STARTS = (b"/9j/", b"iVBORw0KGgo", b"R0lGOD", b"UklGR", b"Qk", b"SUkqA", b"TU0AK")
# What wrappers of lines and careless shells leave in.
_SPACES = b" \t\r\n\"'"


def decode_base64(text: bytes | str) -> bytes:
    """
    Decode base64, leniently.

    Raises:
        ImageInvalid: It begins with a `data:` prefix, whose letters are of the alphabet; or it is
            an image in the URL-safe alphabet.
        ValueError: It is no base64: the padding or the length is wrong.
    """
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        data = text.encode() if isinstance(text, str) else text
    if data.lstrip(_SPACES).startswith(b"data:"):
        raise ImageInvalid("Send the base64 text alone: drop the prefix `data:…;base64,`.")
    if _is_url_safe(data):
        raise ImageInvalid(
            "This is URL-safe base64, with - and _: send the standard alphabet, with + and /."
        )
    try:
        return pybase64.b64decode(data.translate(None, _SPACES), validate=True)
    except ValueError:
        return base64.b64decode(data)


def _is_url_safe(data: bytes) -> bool:
    """Whether it is an image in the URL-safe alphabet: read leniently, a damaged one."""
    text = data.translate(None, _SPACES)
    if not (b"-" in text or b"_" in text) or b"+" in text or b"/" in text:
        return False
    head = text[:16].translate(_STANDARD)
    return any(head.startswith(start) for start in _IMAGE_STARTS)


class Base64(EncoderProtocol):
    """`decode_base64` as pydantic wants it."""

    @classmethod
    def decode(cls, data: bytes) -> bytes:
        """Decode, or raise what pydantic's own `Base64Bytes` raises."""
        try:
            return decode_base64(data)
        except ValueError as error:
            raise PydanticCustomError(
                "base64_decode", "Base64 decoding error: '{error}'", {"error": str(error)}
            ) from error

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        """Encode; nothing here does."""
        return pybase64.b64encode(value)

    @classmethod
    def get_json_format(cls) -> Literal["base64"]:
        """Name the format in the JSON schema."""
        return "base64"
