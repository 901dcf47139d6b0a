"""
One request in, one answer out: where a request ends, held against a second parser.

h11 reads the same bytes. It is more lenient than the gateway, so the rule has one direction: what
the gateway takes for requests, h11 takes for the same requests, with the same bodies; whatever is
doubtful the gateway refuses, and reads nothing behind it.
"""

import os
import re
from dataclasses import dataclass, field
from itertools import pairwise

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.api.connection.framing import BadRequest, Framing, Head

SMUGGLED = b"POST /api/v1/unload?name=m HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n"
MAX_HEAD_BYTES = 4096
AFTER = b"GET /after HTTP/1.1\r\nHost: t\r\n\r\n"

Request = tuple[bytes, bytes, bytes]
"""Method, target, body."""


@dataclass
class Read:
    """What was read from some bytes."""

    requests: list[Request] = field(default_factory=list)
    refused: BadRequest | None = None
    complete: bool = True


def read(pieces: list[bytes]) -> Read:
    """Read bytes as the gateway does; each request is answered as soon as it was read."""
    found, head, body = Read(), None, b""

    def on_head(began: Head) -> None:
        nonlocal head, body
        head, body = began, b""

    def on_body(piece: bytes) -> None:
        nonlocal body
        body += piece

    def on_end() -> None:
        assert head is not None
        found.requests.append((head.method, head.url, body))
        if head.keep_alive:
            framing.next()

    framing = Framing(on_head, on_body, on_end, max_head_bytes=MAX_HEAD_BYTES)
    try:
        for piece in pieces:
            framing.add(piece)
            while framing.step():
                pass
    except BadRequest as refused:
        found.refused = refused
    found.complete = framing.between
    return found


def read_by_h11(data: bytes) -> list[Request]:
    """Read the same as h11 does; up to what it refuses, or to its end."""
    requests: list[Request] = []
    while data:
        # Empty lines before a request are skipped (RFC 9112, 2.2), and blanks in its first line
        # may be several; h11 takes neither. Where a request ends is not changed by either.
        data = re.sub(rb"^([A-Z]+) +(\S+) +HTTP", rb"\1 \2 HTTP", data.lstrip(b"\r\n"))
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1_000_000)
        connection.receive_data(data)
        body = b""
        try:
            head = connection.next_event()
            while isinstance(event := connection.next_event(), h11.Data):
                body += bytes(event.data)
        except h11.RemoteProtocolError:
            break
        if not isinstance(head, h11.Request) or not isinstance(event, h11.EndOfMessage):
            break
        requests.append((head.method, head.target, body))
        if connection.their_state is h11.MUST_CLOSE:
            break
        data = connection.trailing_data[0]
    return requests


def _post(*headers: bytes, body: bytes = b"hello") -> bytes:
    return b"\r\n".join([b"POST /run HTTP/1.1", b"Host: t", *headers, b"", body])


def _chunks(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b""))


OFFERS = [
    (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQ"),
    (b"Connection: upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: AAAA"),
    (b"connection: UPGRADE", b"upgrade: h2c, websocket, TLS/1.0"),
    (b"Upgrade: h2c", b"Connection: keep-alive", b"Connection: Upgrade"),
    (b"Upgrade: ", b"Connection: upgrade"),
    (b"Upgrade: a", b"Upgrade: b", b"Connection: upgrade"),
]


@pytest.mark.parametrize("offer", OFFERS, ids=[b" ".join(offer).decode() for offer in OFFERS])
@pytest.mark.parametrize("framed", ["length", "chunks"])
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_an_offer_to_upgrade_is_ignored(offer: tuple[bytes, ...], framed: str, size: int) -> None:
    """The body is read, whatever its bytes look like, and what follows is the next request."""
    if framed == "length":
        sent = _post(*offer, b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED)
    else:
        sent = _post(
            *offer, b"Transfer-Encoding: chunked", body=_chunks(SMUGGLED[:9], SMUGGLED[9:])
        )
    sent += AFTER
    pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
    found = read(pieces)
    assert found.requests == [(b"POST", b"/run", SMUGGLED), (b"GET", b"/after", b"")]
    assert found.refused is None


REFUSED: dict[str, tuple[bytes, int]] = {
    "both lengths": (_post(b"Content-Length: 5", b"Transfer-Encoding: chunked"), 400),
    "both lengths, turned": (_post(b"Transfer-Encoding: chunked", b"Content-Length: 5"), 400),
    "two lengths": (_post(b"Content-Length: 5", b"Content-Length: 6"), 400),
    "one length twice": (_post(b"Content-Length: 5", b"Content-Length: 5"), 400),
    "a list of lengths": (_post(b"Content-Length: 5, 5"), 400),
    "a negative length": (_post(b"Content-Length: -5"), 400),
    "a signed length": (_post(b"Content-Length: +5"), 400),
    "a hexadecimal length": (_post(b"Content-Length: 0x5"), 400),
    "a length with a gap": (_post(b"Content-Length: 5 5"), 400),
    "an empty length": (_post(b"Content-Length: "), 400),
    "a length beyond all": (_post(b"Content-Length: 99999999999999999999"), 400),
    "a blank before the colon": (_post(b"Content-Length : 5"), 400),
    "an unknown coding": (_post(b"Transfer-Encoding: xchunked"), 400),
    "no coding": (_post(b"Transfer-Encoding: identity"), 400),
    "gzip": (_post(b"Transfer-Encoding: gzip, chunked", body=_chunks(b"hello")), 501),
    "gzip in a line of its own": (
        _post(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked", body=_chunks(b"hello")),
        400,
    ),
    "chunks not last": (_post(b"Transfer-Encoding: chunked, gzip"), 400),
    "chunked twice": (_post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 400),
    "chunks of HTTP/1.0": (
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + _chunks(b"hello"),
        400,
    ),
    "a chunk's size with a sign": (_post(b"Transfer-Encoding: chunked", body=b"+5\r\nhello"), 400),
    "a chunk's size with 0x": (_post(b"Transfer-Encoding: chunked", body=b"0x5\r\nhello"), 400),
    "a chunk without a size": (_post(b"Transfer-Encoding: chunked", body=b"\r\nhello"), 400),
    "a chunk beyond all": (_post(b"Transfer-Encoding: chunked", body=b"f" * 17 + b"\r\n"), 400),
    "a chunk too long": (
        _post(b"Transfer-Encoding: chunked", body=b"4\r\nhello\r\n0\r\n\r\n"),
        400,
    ),
    "a chunk and a bare LF": (_post(b"Transfer-Encoding: chunked", body=b"5\nhello\n0\n\n"), 400),
    "a line break in an extension": (
        _post(b"Transfer-Encoding: chunked", body=b'5;a="\n"\r\nhello\r\n0\r\n\r\n'),
        400,
    ),
    "obs-fold": (_post(b"X: a", b" b", b"Content-Length: 5"), 400),
    "obs-fold of a length": (_post(b"Content-Length:", b" 5"), 400),
    "a bare LF": (b"GET / HTTP/1.1\nHost: t\n\n", 400),
    "a bare LF within": (b"GET / HTTP/1.1\r\nHost: t\nX: y\r\n\r\n", 400),
    "a bare LF at the end": (b"GET / HTTP/1.1\r\nHost: t\r\n\n", 400),
    "a bare CR": (_post(b"X: a\rContent-Length: 5", b"Content-Length: 5"), 400),
    "NUL in a value": (_post(b"X: a\0b"), 400),
    "NUL in a name": (_post(b"X\0: a"), 400),
    "NUL in the target": (b"GET /\0 HTTP/1.1\r\nHost: t\r\n\r\n", 400),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "an answer": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 400),
    "an interim answer": (b"HTTP/1.1 100 Continue\r\n\r\n" + AFTER, 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 505),
    "HTTP/2 by knowledge": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "HTTP/2": (b"GET / HTTP/2.0\r\nHost: t\r\n\r\n", 505),
    "a tunnel": (b"CONNECT t:80 HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello", 405),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "noise": (bytes(range(256)), 400),
    "a large head": (b"GET / HTTP/1.1\r\nHost: t\r\nX: " + b"a" * MAX_HEAD_BYTES, 431),
    "many headers": (b"GET / HTTP/1.1\r\nHost: t\r\n" + b"a:b\r\n" * MAX_HEAD_BYTES, 431),
    "a large head, whole": (_post(b"X: " + b"a" * MAX_HEAD_BYTES), 431),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("size", [1, 100_000])
@pytest.mark.parametrize("before", [b"", AFTER], ids=["first", "second"])
def test_what_is_doubtful_is_refused(case: str, size: int, before: bytes) -> None:
    """Whatever could be read in two ways is no request, and what follows it is none either."""
    sent, status = REFUSED[case]
    sent = before + sent + AFTER * 3
    found = read([sent[at : at + size] for at in range(0, len(sent), size)])
    assert found.refused is not None
    assert found.refused.status == status
    expected = [(b"GET", b"/after", b"")] if before else []
    assert [request for request in found.requests if request[0] != b"POST"] == expected


@pytest.mark.parametrize("around", [b"5;x=", b"0\r\nX: ", b"0\r\n"])
def test_what_stands_around_chunks_is_bounded(around: bytes) -> None:
    """Extensions and trailers are no way around the limit of a head."""
    line = b"a: b\r\n" if around.endswith(b"\n") else b"aaaaaa"
    head = _post(b"Transfer-Encoding: chunked", body=around)
    found = read([head, *[line * 10] * MAX_HEAD_BYTES])
    assert found.refused is not None
    assert found.refused.status == 431


def test_nothing_is_read_beyond_the_last_request() -> None:
    """Behind `Connection: close` nothing is a request; before an answer nothing is looked at."""
    sent = b"GET /last HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n" + AFTER
    assert read([sent]).requests == [(b"GET", b"/last", b"")]
    heads: list[Head] = []
    framing = Framing(heads.append, lambda _: None, lambda: None, max_head_bytes=MAX_HEAD_BYTES)
    framing.add(AFTER + b"\0 garbage")
    while framing.step():
        pass
    assert [head.url for head in heads] == [b"/after"]
    assert framing.waiting
    framing.next()
    with pytest.raises(BadRequest):
        framing.step()


# Mostly what is right, so that many a stream has several requests, and in them what is doubtful.
FIELDS = [
    b"X: y",
    b"Connection: keep-alive",
    b"Connection: Upgrade\r\nUpgrade: h2c",
    b"Expect: 100-continue",
    b"TE: trailers",
    b"X: \xff",
    b"Upgrade: h2c",
    b"Accept:",
    b"X: \t a b ",
]
DOUBTFUL_FIELDS = [
    b"Content-Length: 5",
    b"Content-Length: 36",
    b"Content-Length: 05",
    b"Content-Length: 5, 5",
    b"Content-Length: \t5",
    b"Content-Length:5\x0b",
    b"content-length : 5",
    b"Content\0Length: 5",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: Chunked ",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding:\x0bchunked",
    b"Transfer-encoding\t: chunked",
    b"Connection: close",
    b"X: a\r\n b",
    b"X: a\0b",
    b": x",
    b" X: y",
    b"X",
    b"Host: u",
]
STARTS = [
    b"POST /run HTTP/1.1",
    b"GET / HTTP/1.1",
    b"PUT http://h/p?q HTTP/1.1",
    b"OPTIONS * HTTP/1.1",
]
DOUBTFUL_STARTS = [
    b"POST / HTTP/1.0",
    b"POST  / HTTP/1.1",
    b"\r\nPOST / HTTP/1.1",
    b"GET /",
    b"HTTP/1.1 100 Continue",
    b"GET / HTTP/1.10",
    b"GET / http/1.1",
]
BODIES = [
    b"",
    b"hello",
    SMUGGLED,
    _chunks(b"hello"),
    _chunks(SMUGGLED),
    b"0\r\n\r\n",
    b"\r\n\r\n" * 3,
]
DOUBTFUL_CHUNKS = [
    b"5;x\r\nhello\r\n0\r\nT: v\r\n\r\n",
    b'5;x="a"\r\nhello\r\n0\r\n\r\n',
    b"05\r\nhello\r\n00\r\n\r\n",
    b"5\nhello\n0\n\n",
    b"5 \r\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\r\n0\r\nX\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\n",
    b"5\r\nhello0\r\n\r\n",
]
MUTATIONS = [b"", b"\0", b"\n", b"\r", b" ", b"\r\n", b":", b"0", b"\x80", b"\r\n\r\n"]


@st.composite
def _messages(draw: st.DrawFn) -> bytes:
    doubtful = draw(
        st.sampled_from(["nothing"] * 6 + ["start", "field", "field", "chunks", "bytes"])
    )
    start = draw(st.sampled_from(DOUBTFUL_STARTS if doubtful == "start" else STARTS))
    fields = [b"Host: t", *draw(st.lists(st.sampled_from(FIELDS), max_size=2))]
    if doubtful == "field":
        fields.insert(draw(st.integers(0, 1)), draw(st.sampled_from(DOUBTFUL_FIELDS)))
    body = draw(st.sampled_from(BODIES))
    if doubtful == "chunks" or draw(st.booleans()):
        fields.append(b"Transfer-Encoding: chunked")
        body = _chunks(body) if body else _chunks()
        body = draw(st.sampled_from(DOUBTFUL_CHUNKS)) if doubtful == "chunks" else body
    else:
        fields.append(b"Content-Length: %d" % len(body))
    message = bytearray(b"\r\n".join([start, *fields, b"", body]))
    if doubtful == "bytes":
        at, size = draw(st.integers(0, len(message) - 1)), draw(st.integers(0, 2))
        message[at : at + size] = draw(st.sampled_from(MUTATIONS))
    return bytes(message)


@st.composite
def _streams(draw: st.DrawFn) -> list[bytes]:
    sent = b"".join(draw(st.lists(_messages(), min_size=1, max_size=4))) + AFTER
    cuts = sorted(draw(st.lists(st.integers(0, len(sent)), max_size=6)))
    return [sent[begin:end] for begin, end in pairwise([0, *cuts, len(sent)])]


@settings(max_examples=int(os.environ.get("FRAMING_EXAMPLES", "500")), deadline=None)
@given(_streams())
def test_what_is_read_is_what_another_parser_reads(pieces: list[bytes]) -> None:
    """Any stream, cut anywhere: each request that is taken is one that h11 takes, to the byte."""
    sent = b"".join(pieces)
    ours = read([piece for piece in pieces if piece])
    assert ours.requests == read_by_h11(sent)[: len(ours.requests)]
    # Where the bytes happen to be cut changes nothing.
    whole = read([sent])
    assert whole.requests == ours.requests
    assert (whole.refused is None) == (ours.refused is None)
