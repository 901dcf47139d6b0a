"""
Names and version numbers that are safe everywhere they go: a directory, a URL, and the command line
with which Triton's Python backend starts a model's process, which a shell reads.

Source: Triton, Model Repository ("Model Versions": numerically named, not starting with zero).
"""

import re

from gateway.converter.errors import NameInvalid, VersionInvalid

# Triton models that hold further versions of one of ours; see `layout.py`.
_FURTHER = re.compile(r"(.+)\.signature-([1-9][0-9]{0,5})", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_VERSION = re.compile(r"[1-9][0-9]{0,18}")
MAX_VERSION = 2**63 - 1


def check_model_name(name: str) -> str:
    """
    Return the name if it may name a model: 1 to 128 letters, digits, dots, underscores and hyphens,
    beginning with a letter or digit, without two dots in a row. NAME.signature-NUMBER is reserved.

    Raises:
        NameInvalid: It may not.
    """
    if _FURTHER.fullmatch(name):
        raise NameInvalid(
            f"{name[:160]!r} is reserved: versions of a model that have other inputs or outputs "
            "than the first lie in Triton models of such names."
        )
    if not _NAME.fullmatch(name) or ".." in name:
        raise NameInvalid(
            f"{name[:160]!r} is not a model name: 1 to 128 of A-Z a-z 0-9 . _ -, beginning with a "
            "letter or digit, without '..'"
        )
    return name


def is_portable(name: str) -> bool:
    """
    Whether a directory of that name can lie on every file system: Windows keeps some names for
    devices, whatever their extension, and drops a dot at the end.

    Source: Microsoft, "Naming Files, Paths, and Namespaces".
    """
    return not _DEVICE.fullmatch(name) and not name.endswith(".")


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


def triton_model_name(name: str, ordinal: int) -> str:
    """Return the name of a model's first, second, … Triton model: NAME, NAME.signature-2, …"""
    return name if ordinal == 1 else f"{name}.signature-{ordinal}"


def parse_triton_model(triton_model: str) -> tuple[str, int]:
    """Return the model whose versions a Triton model holds, and its ordinal among them."""
    found = _FURTHER.fullmatch(triton_model)
    if found is None or triton_model_name(found[1], int(found[2])) != triton_model:
        return triton_model, 1
    return found[1], int(found[2])
