"""HTTP as bytes over a socket, for what no well-behaved client would send."""

import json
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httptools


@dataclass
class RawResponse:
    """One answer of a connection; names of headers in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes = b""

    def json(self) -> Any:
        """Read the body."""
        return json.loads(self.body)


def connect(url: str, timeout_s: float = 30.0) -> socket.socket:
    """Open a connection to a server."""
    place = urlsplit(url)
    assert place.hostname is not None
    assert place.port is not None
    return socket.create_connection((place.hostname, place.port), timeout_s)


def exchange(url: str, *pieces: bytes, timeout_s: float = 30.0) -> list[RawResponse]:
    """Send bytes as they are, and return every answer up to the end of the connection."""
    with connect(url, timeout_s) as connection:
        for piece in pieces:
            connection.sendall(piece)
        return answers(connection)


def answers(connection: socket.socket) -> list[RawResponse]:
    """Read answers up to the end of the connection; a reset is an end, too."""
    reader = _Reader()
    try:
        while data := connection.recv(65536):
            reader.parser.feed_data(data)
    except ConnectionResetError:
        pass
    return reader.answers


class _Reader:
    def __init__(self) -> None:
        self.answers: list[RawResponse] = []
        self.parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}

    def on_message_begin(self) -> None:
        self._headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode()

    def on_headers_complete(self) -> None:
        self.answers.append(RawResponse(self.parser.get_status_code(), self._headers))

    def on_body(self, body: bytes) -> None:
        self.answers[-1].body += body
