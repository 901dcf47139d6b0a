"""
Where one request ends and the next begins. One request in, one answer out.

httptools (llhttp) reads heads and bodies; it is strict about what a proxy might read differently
(RFC 9112, sections 5 and 6). Three things are decided here:

- One request is read at a time. What follows it stays as it came until the answer is written, so
  that a client that sends much and reads nothing costs no more than what one read brings.
- An offer to change the protocol is ignored (RFC 9110, section 7.8). llhttp stops at such an offer,
  does not read the body, and would take the body's bytes for a request.
- A head has a greatest size, and so has what stands around the chunks of a body.

A request can end only where its length says, or behind an empty line. The parser is fed up to
there, so it is always known which bytes belong to a request.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import httptools

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case, and values."""

_READ_HERE = {b"host", b"content-length", b"content-type", b"expect", b"transfer-encoding"}
_SAID_ONCE = {b"host", b"content-length", b"transfer-encoding"}
_EMPTY_LINE = b"\r\n\r\n"
_LESS_THAN_EMPTY_LINE = 3
"""So many bytes of an empty line may have come with the read before."""


class BadRequest(Exception):
    """
    What came cannot be answered as a request; nothing more is read from its connection.

    `status`, `code` and `detail` are what the client is told; `refusal` is why it was refused for
    lack of room, if so.
    """

    def __init__(self, status: int, code: str, detail: str, refusal: str = "") -> None:
        super().__init__(detail)
        self.refusal = refusal
        self.status = status
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Head:
    """
    The head of a request.

    Attributes:
        method: As it was sent.
        url: The target, as it was sent.
        version: "1.1" or "1.0".
        headers: In their order; names in lower case.
        length: Bytes of the body; None if it comes in chunks.
        content_type: As it was sent, if it was.
        keep_alive: Another request may follow.
        expects_continue: The client waits for a word before it sends the body.
    """

    method: bytes
    url: bytes
    version: str
    headers: list[tuple[bytes, bytes]]
    length: int | None
    content_type: bytes | None
    keep_alive: bool
    expects_continue: bool


class Framing:
    """
    Cuts the bytes of a connection into requests.

    Args:
        on_head: Called with each request's head.
        on_body: Called with each piece of a body.
        on_end: Called when a request has been read. Nothing more is read before `next`.
        max_head_bytes: Greatest size of a head, and of what stands around a body's chunks.
    """

    def __init__(
        self,
        on_head: Callable[[Head], None],
        on_body: Callable[[bytes], None],
        on_end: Callable[[], None],
        *,
        max_head_bytes: int,
    ) -> None:
        self._on_head = on_head
        self._on_body = on_body
        self._on_end = on_end
        self._max_head_bytes = max_head_bytes
        self._parser = httptools.HttpRequestParser(self)
        self._data = b""
        self._at = 0
        self._begin()

    def _begin(self) -> None:
        self.head: Head | None = None
        """The head of the request that is being read; None between requests, and within a head."""
        self.ended = False
        """The request has been read; `next` goes on."""
        self.left_bytes = 0
        """Bytes of the body that have not come; 0 if its length was not told."""
        self._around_bytes = 0
        self._tail = b""
        self._headers_read = self._message_read = self._astray = False

    @property
    def waiting(self) -> bool:
        """Bytes are there that have not been looked at."""
        return self._at < len(self._data)

    @property
    def between(self) -> bool:
        """No byte of a request has come that has not been read to its end."""
        return self.ended or (self.head is None and not self._around_bytes)

    def add(self, data: bytes) -> None:
        """Take what came over the connection."""
        self._data = self._data[self._at :] + data if self.waiting else data
        self._at = 0

    def next(self) -> None:
        """Go on with the request behind the one that has been read."""
        self._begin()

    def step(self) -> bool:
        """
        Read one step further; False if the request has ended or more bytes are needed.

        Raises:
            BadRequest: This is no HTTP, or not what is served.
        """
        if self.ended or not self.waiting:
            return False
        in_head, size = self.head is None, self._next_size()
        if in_head and self._around_bytes + size > self._max_head_bytes:
            raise BadRequest(431, "headers_too_large", "The request's headers are too large.")
        piece = memoryview(self._data)[self._at : self._at + size]
        self._at += size
        self._around_bytes += size
        self._feed(piece)
        if in_head and self._headers_read:
            self.head = self._check()
            self._around_bytes = 0
            self.left_bytes = self.head.length or 0
            self._tail = b""
            self._on_head(self.head)
        elif self.head is not None and self.head.length is not None:
            self.left_bytes -= size
        elif self._around_bytes > self._max_head_bytes:
            raise BadRequest(431, "headers_too_large", "The request's trailers are too large.")
        if self._message_read:
            self.ended = True
            self._on_end()
        return True

    def _next_size(self) -> int:
        """Tell how many of the bytes that are there the request can have at most."""
        there = len(self._data) - self._at
        if self.head is not None and self.head.length is not None:
            return min(self.left_bytes, there)
        before = len(self._tail)
        data, begin = (self._tail + self._data[self._at :], 0) if before else (self._data, self._at)
        found = data.find(_EMPTY_LINE, begin)
        if found >= 0:
            self._tail = b""
            return found + len(_EMPTY_LINE) - begin - before
        self._tail = data[max(begin, len(data) - _LESS_THAN_EMPTY_LINE) :]
        return there

    def _feed(self, piece: memoryview) -> None:
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            self._ignore_offer()
        except httptools.HttpParserError as error:
            raise _invalid("This is no valid HTTP/1.1 request.") from error
        if self._astray:
            # The parser saw an end where none can be.
            raise _invalid("This is no valid HTTP/1.1 request.")

    def _ignore_offer(self) -> None:
        """Read the head again, by a parser that does not see the offer."""
        if self._method == b"CONNECT":
            raise BadRequest(405, "method_not_allowed", "This server is no proxy.")
        lines = [b"%s %s HTTP/%s" % (self._method, self._url, self._version.encode())]
        lines += [b"%s: %s" % header for header in self._headers if header[0] != b"upgrade"]
        self._headers_read = self._message_read = False
        self._parser = httptools.HttpRequestParser(self)
        self._feed(memoryview(b"\r\n".join([*lines, b"", b""])))

    def _check(self) -> Head:
        """Make a head of what the parser read; what is ambiguous is refused (RFC 9112)."""
        if self._version not in {"1.1", "1.0"}:
            raise BadRequest(505, "http_version_unsupported", "HTTP/1.1 is spoken here.")
        named = {}
        for name, value in self._headers:
            if name in _READ_HERE:
                if name in named and name in _SAID_ONCE:
                    raise _invalid("A header that is said once only came twice.")
                named[name] = value
        if b"host" not in named and self._version == "1.1":
            raise _invalid("A request names its Host.")
        return Head(
            self._method,
            self._url,
            self._version,
            self._headers,
            _length(named, self._version),
            named.get(b"content-type"),
            self._keep_alive and self._version == "1.1",
            self._version == "1.1" and named.get(b"expect", b"").lower() == b"100-continue",
        )

    # What the parser calls, in this order.

    def on_message_begin(self) -> None:
        """Hear that a request begins."""
        self._astray = self._message_read
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        """Hear a piece of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Hear one header; behind a body in chunks it is a trailer, which nobody reads."""
        if not self._headers_read:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Hear that the head has ended."""
        self._headers_read = True
        self._method = self._parser.get_method()
        self._version = self._parser.get_http_version()
        self._keep_alive = self._parser.should_keep_alive()

    def on_body(self, piece: bytes) -> None:
        """Hear a piece of the body."""
        if self.head is None:
            self._astray = True
            return
        self._around_bytes = 0
        self._on_body(piece)

    def on_message_complete(self) -> None:
        """Hear that the request has ended."""
        self._message_read = True


def _length(named: Mapping[bytes, bytes], version: str) -> int | None:
    coding = named.get(b"transfer-encoding")
    if coding is None:
        return int(named.get(b"content-length", b"0"))
    if version == "1.0":
        raise _invalid("HTTP/1.0 knows no Transfer-Encoding.")
    if coding.strip().lower() != b"chunked":
        raise BadRequest(501, "transfer_encoding_unsupported", "Only `chunked` is understood.")
    return None


def _invalid(detail: str) -> BadRequest:
    return BadRequest(400, "http_invalid", detail)
