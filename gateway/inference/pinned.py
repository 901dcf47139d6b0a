"""Which version a caller asks for: by a number, or by an alias."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from gateway.errors import ProtocolUnsupported, VersionInvalid

_LARGEST_VERSION = 2**63 - 1


class Pinned(NamedTuple):
    """What a caller pinned, if anything."""

    version: int | None = None
    alias: str | None = None


def read_version(text: str | None) -> int | None:
    """
    Read a version as Triton writes one: a positive number with no leading zero.

    Raises:
        VersionInvalid: It is something else, or more than 63 bits.
    """
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal()) or text.startswith("0") or len(text) > 19:
        raise VersionInvalid("A version is a positive number, for example 2.")
    if (number := int(text)) > _LARGEST_VERSION:
        raise VersionInvalid("A version is a positive number of at most 63 bits.")
    return number


def read_load(parameters: Mapping[str, Any]) -> int | None:
    """
    Read which version a V2 load names; see `named_version`.

    Raises:
        VersionInvalid: It is no version.
        ProtocolUnsupported: Another parameter: the configuration and the files of a version are
            what was registered.
    """
    if others := sorted(parameters.keys() - {"version"}):
        raise ProtocolUnsupported(
            f"Models are loaded as they were registered: {others[0][:60]!r} is not taken."
        )
    return named_version(parameters)


def named_version(parameters: Mapping[str, Any]) -> int | None:
    """
    Read the parameter `version` of a V2 load or unload; None without one.

    Raises:
        VersionInvalid: It is no version.
    """
    version = parameters.get("version")
    return None if version is None else read_version(str(version))


def read_pinned(text: str | None, alias: str | None = None) -> Pinned:
    """
    Read the version of a V2 call, where an alias may stand for a number.

    Args:
        text: A number, an alias, or nothing.
        alias: An alias that is named elsewhere; `text` is stronger.

    Raises:
        VersionInvalid: It begins like a number and is no version.
    """
    if not text:
        return Pinned(None, alias or None)
    if text[0].isdecimal() or text[0] in "+-":
        return Pinned(read_version(text))
    return Pinned(None, text)
