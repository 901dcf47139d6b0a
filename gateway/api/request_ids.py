"""The id of a request, from its `X-Request-ID`; see `telemetry/request_ids.py`."""

from collections.abc import Iterable

from starlette.types import Scope

from gateway.telemetry.request_ids import new_request_id, well_formed


def well_formed_id(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the caller's id if it is well formed."""
    return well_formed(next((value for name, value in headers if name == b"x-request-id"), b""))


def name_request(scope: Scope) -> str:
    """Give a request its id: the caller's, or one of ours."""
    request_id = well_formed_id(scope["headers"]) or new_request_id()
    scope.setdefault("state", {})["request_id"] = request_id
    return request_id


def request_id_of(scope: Scope) -> str:
    """Return the id of a request that was named."""
    request_id: str = scope["state"]["request_id"]
    return request_id
