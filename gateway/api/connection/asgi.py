"""A request in the words of ASGI."""

from typing import Any, NamedTuple
from urllib.parse import unquote

import httptools
from starlette.types import Scope
from uvicorn.config import Config

from gateway.api.connection.framing import BadRequest, Head


class Endpoints(NamedTuple):
    """The two ends of a connection and what is spoken between them, as ASGI names it."""

    server: tuple[str, int | None] | None
    client: tuple[str, int] | None
    scheme: str


def asgi_scope(head: Head, ends: Endpoints, config: Config, state: dict[str, Any]) -> Scope:
    """
    Describe a request.

    Raises:
        BadRequest: Its target is no URL.
    """
    try:
        url = httptools.parse_url(head.url)
        raw_path = url.path or b"*"
        path = raw_path.decode("ascii")
    except (httptools.HttpParserInvalidURLError, UnicodeDecodeError) as error:
        raise BadRequest(400, "http_invalid", "The request's target is no URL.") from error
    return {
        "type": "http",
        "asgi": {"version": config.asgi_version, "spec_version": "2.3"},
        "http_version": head.version,
        "server": ends.server,
        "client": ends.client,
        "scheme": ends.scheme,
        "method": head.method.decode(),
        "root_path": config.root_path,
        "path": config.root_path + (unquote(path) if "%" in path else path),
        "raw_path": config.root_path.encode() + raw_path,
        "query_string": url.query or b"",
        "headers": head.headers,
        "state": state.copy(),
    }
