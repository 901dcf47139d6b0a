"""
The id of a request: the caller's if it is well formed, so that a trace can cross systems. Anything
else is replaced, so that nothing of a caller's choosing ends up in a log.
"""

import re
from random import getrandbits

_WELL_FORMED = re.compile(rb"[A-Za-z0-9._-]{1,128}")


def well_formed(given: bytes) -> str | None:
    """Return a caller's id if it is well formed."""
    return given.decode() if _WELL_FORMED.fullmatch(given) else None


def new_request_id() -> str:
    """Make an id."""
    # An id is no secret: it has to be new, not hard to guess.
    return f"{getrandbits(128):032x}"
