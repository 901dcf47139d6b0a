"""
The id of a request: the caller's `X-Request-ID` if it is well formed, so that a trace can cross
systems. Anything else is replaced, so that nothing of a caller's choosing ends up in a log.
"""

import re
from collections.abc import Iterable
from random import getrandbits

from starlette.types import Scope

_WELL_FORMED = re.compile(rb"[A-Za-z0-9._-]{1,128}")


def well_formed_id(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the caller's id if it is well formed."""
    given = next((value for name, value in headers if name == b"x-request-id"), b"")
    return given.decode() if _WELL_FORMED.fullmatch(given) else None


def name_request(scope: Scope) -> str:
    """Give a request its id: the caller's, or one of ours."""
    # An id is no secret: it has to be new, not hard to guess.
    request_id = well_formed_id(scope["headers"]) or f"{getrandbits(128):032x}"
    scope.setdefault("state", {})["request_id"] = request_id
    return request_id


def request_id_of(scope: Scope) -> str:
    """Return the id of a request that was named."""
    request_id: str = scope["state"]["request_id"]
    return request_id
