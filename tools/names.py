"""
The rules for names and versions.

A name is a directory, a part of a URL and an argument that Triton hands to a shell: only letters,
digits and `._-` are safe in all three.
"""

import re

from tools.errors import NameInvalid, VersionInvalid

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
LARGEST_VERSION = 2**63 - 1

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def check_model_name(name: str) -> str:
    """
    Return the name if it follows the rules.

    Raises:
        NameInvalid: It does not; the text says which rule.
    """
    if ".." in name:
        raise NameInvalid(f"The name {name!r} contains '..'.")
    if not _NAME.fullmatch(name):
        raise NameInvalid(
            f"The name {name[:140]!r} is not allowed: 1 to 128 letters, digits, '.', '_' or '-', "
            "beginning with a letter or a digit."
        )
    return name


def check_version(version: int) -> int:
    """
    Return the version if Triton can name a directory by it.

    Raises:
        VersionInvalid: It is not positive, or needs more than 63 bits.
    """
    if not 1 <= version <= LARGEST_VERSION:
        raise VersionInvalid(f"{version} is no version: 1 to {LARGEST_VERSION}.")
    return version
