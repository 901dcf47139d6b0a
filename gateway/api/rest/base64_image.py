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

# What wrappers of lines and careless shells leave in.
_SPACES = b" \t\r\n\"'"


def decode_base64(text: bytes | str) -> bytes:
    """
    Decode base64, leniently.

    Raises:
        ImageInvalid: It begins with a `data:` prefix, whose letters are of the alphabet.
        ValueError: It is no base64: the padding or the length is wrong.
    """
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        data = text.encode() if isinstance(text, str) else text
    if data.lstrip(_SPACES).startswith(b"data:"):
        raise ImageInvalid("Send the base64 text alone: drop the prefix `data:…;base64,`.")
    try:
        return pybase64.b64decode(data.translate(None, _SPACES), validate=True)
    except ValueError:
        return base64.b64decode(data)


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
