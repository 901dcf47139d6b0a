"""
Patterns of model names, as a key has them: `flowers`, `flowers-*`, `*`.

`*` stands for any characters and `?` for one; everything else stands for itself, and case counts.
"""

import functools
import re
from collections.abc import Iterable

PATTERN = r"^[A-Za-z0-9._*?-]{1,128}$"
"""What every pattern looks like."""
_PATTERN = re.compile(PATTERN)


def check_patterns(patterns: Iterable[str]) -> tuple[str, ...]:
    """
    Return the patterns, each once; none at all where one of them is `*`.

    Raises:
        ValueError: One of them could not match the name of a model.
    """
    distinct = tuple(dict.fromkeys(patterns))
    for pattern in distinct:
        if not _PATTERN.fullmatch(pattern):
            raise ValueError(f"{pattern!r} is no pattern of model names.")
    return () if "*" in distinct else distinct


@functools.lru_cache(maxsize=4096)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    parts = (re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".") for pattern in patterns)
    return re.compile("|".join(parts))


def matches(patterns: tuple[str, ...], name: str) -> bool:
    """Whether a name matches one of the patterns; without patterns every name does."""
    return not patterns or _compiled(patterns).fullmatch(name) is not None
