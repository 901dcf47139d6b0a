"""
Names and version numbers that are safe everywhere they go: a directory, a URL, and the command line
with which Triton's Python backend starts a model's process, which a shell reads.

Source: Triton, Model Repository ("Model Versions": numerically named, not starting with zero).
"""

import re

from gateway.converter.errors import NameInvalid, VersionInvalid

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"[1-9][0-9]{0,18}")
MAX_VERSION = 2**63 - 1


def check_model_name(name: str) -> str:
    """
    Return the name if it may name a model: 1 to 128 letters, digits, dots, underscores and hyphens,
    beginning with a letter or digit, without two dots in a row.

    Raises:
        NameInvalid: It may not.
    """
    if not _NAME.fullmatch(name) or ".." in name:
        raise NameInvalid(
            f"{name[:160]!r} is not a model name: 1 to 128 of A-Z a-z 0-9 . _ -, beginning with a "
            "letter or digit, without '..'"
        )
    return name


def check_version(version: int) -> int:
    """
    Return the number if it may number a version: 1 to 2^63 - 1.

    Raises:
        VersionInvalid: It may not.
    """
    if isinstance(version, bool) or not 1 <= version <= MAX_VERSION:
        raise VersionInvalid(f"{version} is not a version: a whole number from 1 to {MAX_VERSION}")
    return version


def parse_version(text: str) -> int:
    """
    Read a version as it is written in a directory's name or a URL: decimal, no sign, no zero first.

    Raises:
        VersionInvalid: It is written otherwise, or too large.
    """
    if not _VERSION.fullmatch(text):
        raise VersionInvalid(
            f"{text[:40]!r} is not a version: a whole number from 1 to {MAX_VERSION}"
        )
    return check_version(int(text))
