"""Answers that are written as a whole, past the framework."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from random import getrandbits

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from gateway.api.connection.framing import BadRequest, Headers

JSON = b"application/json"


@dataclass(frozen=True, slots=True)
class RawResponse:
    """An answer. `headers` say neither how long the body is nor whether the connection goes on."""

    status: int
    headers: Headers
    body: bytes = field(repr=False)

    def encoded(self, also: Iterable[tuple[bytes, bytes]], *, keep_alive: bool) -> bytes:
        """
        Return the bytes to write.

        Args:
            also: Headers of every answer.
            keep_alive: Whether the connection goes on behind it.
        """
        pieces = [STATUS_LINE[self.status]]
        for name, value in (*also, *self.headers):
            pieces += name, b": ", value, b"\r\n"
        if not keep_alive:
            pieces.append(b"connection: close\r\n")
        pieces += b"content-length: %d\r\n\r\n" % len(self.body), self.body
        return b"".join(pieces)


def fault_response(fault: BadRequest, request_id: str | None = None) -> RawResponse:
    """Answer what is refused past the app, in the one shape; with an id of its own if need be."""
    request_id = request_id or f"{getrandbits(128):032x}"
    body = {"detail": fault.detail, "code": fault.code, "request_id": request_id}
    headers = [(b"content-type", JSON), (b"x-request-id", request_id.encode())]
    if fault.status in {429, 503}:
        headers.append((b"retry-after", b"1"))
    return RawResponse(fault.status, headers, orjson.dumps(body))
