"""
The short way of a run and the general one: the same request, the same status, headers and body.

Both over real connections: a server whose plain runs are answered by `FastRuns`, and one that
leaves them to the app. What stands behind is neither's business: a runner that tells what it got.
"""

import asyncio
import base64
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from gateway.access.callers import ANYBODY
from gateway.access.limits import RateLimits
from gateway.api import errors
from gateway.api.connection.fast_run import FastRuns
from gateway.api.connection.protocol import http_protocol
from gateway.api.middleware.body_limit import BodyLimitErrors
from gateway.api.middleware.metering import Metering
from gateway.api.middleware.request_context import RequestContext
from gateway.api.middleware.shell import HttpMiddleware
from gateway.api.rest import contract
from gateway.api.sites import Sites
from gateway.errors import ModelNotLoaded, Overloaded
from gateway.inference.admission import Admission
from gateway.inference.fair_queue import EVERYBODY
from gateway.inference.request import Prediction, Stages
from gateway.telemetry.observation import Observation

IMAGE = b"\0\1\2 an image \xff" * 20
TEXT = base64.b64encode(IMAGE).decode()
PLAIN = json.dumps({"image": TEXT}).encode()
MAX_BODY_BYTES = 100_000
MAX_BATCH_IMAGES = 5
JSON = "application/json"
FORM = "multipart/form-data; boundary=B"
HUGE = "A" * 40_000


@dataclass
class Told:
    """What the runner was asked, and what was counted."""

    asked: list[dict[str, Any]] = field(default_factory=list)
    counted: list[Observation] = field(default_factory=list)
    plain: int = 0
    hold: asyncio.Event | None = None
    asked_one: asyncio.Event = field(default_factory=asyncio.Event)
    counted_one: asyncio.Event = field(default_factory=asyncio.Event)

    def choose(self, name: str, **_: Any) -> Any:
        if name == "absent":
            raise ModelNotLoaded(name)
        return SimpleNamespace(version=3)

    async def run(
        self, name: str, image: bytes, *, seen: Observation | None = None, **more: Any
    ) -> Any:
        seen = seen or Observation()
        # A plain run pins nothing, and does not say so.
        pinned = {key: value for key, value in more.items() if value is not None or key == "key"}
        self.asked.append({"name": name, "image": image, **pinned})
        self.asked_one.set()
        seen.version = 3
        if self.hold is not None:
            await self.hold.wait()
        if name == "absent":
            raise ModelNotLoaded(name)
        if name == "busy":
            raise Overloaded("Too much.")
        if name == "crash":
            raise RuntimeError("boom")
        stages = Stages()
        stages.note(seen)
        category, scores = f"{name}:{image.hex()}", np.zeros(10, np.float32)
        chosen: Any = SimpleNamespace(labels=None, scores="probabilities", version=3)
        return Prediction(category, scores, chosen, stages)

    def record(self, seen: Observation) -> None:
        self.counted.append(seen)
        self.counted_one.set()


@dataclass
class Ways:
    """The two servers, by name, and what stands behind them."""

    ports: dict[str, int]
    told: Told

    def url(self, way: str) -> str:
        return f"http://127.0.0.1:{self.ports[way]}"


class _OpenDoor(HttpMiddleware):
    """As authorization in a gateway without keys."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["caller"] = ANYBODY
        await self._app(scope, receive, send)


class _CountedRuns(FastRuns):
    told: Told

    async def answer(self, *arguments: Any) -> Any:
        self.told.plain += 1
        return await super().answer(*arguments)


@pytest.fixture
async def ways() -> AsyncIterator[Ways]:
    told = Told()
    app = FastAPI(strict_content_type=False)
    app.state.services = SimpleNamespace(
        admission=Admission(8, 8),
        runner=told,
        metrics=told,
        keyring=SimpleNamespace(open=True),
        limits=RateLimits(),
        share_of=lambda _caller: EVERYBODY,
        settings=SimpleNamespace(max_batch_images=MAX_BATCH_IMAGES),
    )
    app.state.tracer = None
    app.state.sites = Sites([], [])
    app.include_router(contract.router, max_body_size=MAX_BODY_BYTES)
    errors.install(app)
    for middleware in (BodyLimitErrors, _OpenDoor, RequestContext, Metering):
        app.add_middleware(middleware)
    runs = _CountedRuns(app, max_body_bytes=MAX_BODY_BYTES)
    runs.told = told
    ports = {}
    async with contextlib.AsyncExitStack() as stack:
        for way, http in (("short", http_protocol(runs)), ("general", "httptools")):
            ports[way] = await stack.enter_async_context(_served(app, http))
        yield Ways(ports, told)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


@contextlib.asynccontextmanager
async def _served(app: FastAPI, http: Any) -> AsyncIterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    # A crash is logged by the app; uvicorn's own word about it is switched off.
    config = uvicorn.Config(app, http=http, lifespan="off", log_config=None, log_level="critical")
    server = _Server(config)
    serving_ = asyncio.create_task(server.serve(sockets=[listener]))
    yield listener.getsockname()[1]
    server.should_exit = True
    await serving_


async def _ask(
    ways: Ways, way: str, path: str, content: bytes | AsyncIterator[bytes], **headers: str
) -> httpx.Response:
    async with httpx.AsyncClient(base_url=ways.url(way), trust_env=False) as client:
        request = client.build_request("POST", path, content=content)
        for name, value in {"x-request-id": "same", **headers}.items():
            request.headers[name] = value
        return await client.send(request)


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 5000):
        yield content[start : start + 5000]


def _json(body: object) -> bytes:
    return json.dumps(body).encode()


def _headers(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name != "date"}


def _form(*images: bytes, name: str = "image") -> bytes:
    head = f'--B\r\nContent-Disposition: form-data; name="{name}"; filename="x.png"\r\n\r\n'
    return b"".join(head.encode() + image + b"\r\n" for image in images) + b"--B--\r\n"


CASES: dict[str, tuple[bytes, str, str | None, int]] = {
    # what: body, query, content type, status
    "plain": (PLAIN, "", JSON, 200),
    "no content type": (PLAIN, "", None, 200),
    "charset": (PLAIN, "", "application/json; charset=utf-8", 200),
    "charset, no blank": (PLAIN, "", "application/json;charset=utf-8", 200),
    "a wrong charset": (PLAIN, "", "application/json;charset=utf-16", 200),
    "capitals": (PLAIN, "", "Application/JSON", 200),
    "a suffix": (PLAIN, "", "application/vnd.x+json", 200),
    "another type": (PLAIN, "", "text/plain", 422),
    "a longer type": (PLAIN, "", "application/jsonlines", 422),
    "a form": (b"image=AAAA", "", "application/x-www-form-urlencoded", 422),
    "bytes": (IMAGE, "", "application/octet-stream", 200),
    "bytes, a query": (IMAGE, "?top_k=3", "application/octet-stream", 200),
    "an image": (IMAGE, "", "image/jpeg", 200),
    "an image of any kind": (IMAGE, "", "Image/Made-Up; q=1", 200),
    "an empty image": (b"", "", "image/png", 200),
    "JSON that is said to be an image": (PLAIN, "", "image/png", 200),
    "bytes that are too large": (b"A" * (MAX_BODY_BYTES + 1), "", "image/png", 413),
    "a form of one": (_form(IMAGE), "", FORM, 200),
    "a form of several": (_form(IMAGE, b"", IMAGE[1:]), "", FORM, 200),
    "a form of other parts": (_form(IMAGE, name="photo"), "", FORM, 422),
    "a form without end": (_form(IMAGE)[:-8], "", FORM, 422),
    "a form without boundary": (_form(IMAGE), "", "multipart/form-data", 422),
    "several": (_json({"images": [TEXT, "QQ=", "data:image/png;base64,QUJD", ""]}), "", JSON, 200),
    "several of one": (_json({"images": [TEXT]}), "", JSON, 200),
    "several, ranked": (_json({"images": [TEXT, TEXT]}), "?top_k=2", JSON, 200),
    "several beside one": (_json({"images": [TEXT], "image": TEXT}), "", JSON, 200),
    "several of none": (_json({"images": []}), "", JSON, 422),
    "several that are no list": (_json({"images": TEXT}), "", JSON, 422),
    "several that are no text": (_json({"images": [TEXT, 7]}), "", JSON, 422),
    "too many": (_json({"images": ["QUJD"] * (MAX_BATCH_IMAGES + 1)}), "", JSON, 413),
    "an empty type": (PLAIN, "", "", 200),
    "a query": (PLAIN, "?top_k=3", JSON, 200),
    "a bad query": (PLAIN, "?top_k=0", JSON, 422),
    "an unknown query": (PLAIN, "?x=1", JSON, 200),
    "blanks": (b" \n" + PLAIN + b"\r\n ", "", JSON, 200),
    "escapes": (PLAIN.replace(b"A", b"\\u0041"), "", JSON, 200),
    "an extra field": (_json({"image": TEXT, "more": [1]}), "", JSON, 200),
    "a misspelt field": (_json({"imag": TEXT}), "", JSON, 422),
    "image twice": (b'{"image":"AAAA","image":"QUJD"}', "", JSON, 200),
    "image twice, then none": (b'{"image":"AAAA","image":1}', "", JSON, 422),
    "no image": (b'{"image":""}', "", JSON, 200),
    "null": (b'{"image":null}', "", JSON, 422),
    "a number": (b'{"image":7}', "", JSON, 422),
    "a list": (_json({"image": [TEXT]}), "", JSON, 422),
    "NaN": (b'{"image":NaN}', "", JSON, 422),
    "infinity": (b'{"image":"QUJD","x":-Infinity}', "", JSON, 200),
    "NaN alone": (b"NaN", "", JSON, 422),
    "a huge number": (b'{"image":1e999}', "", JSON, 422),
    "half a pair": (b'{"image":"\\ud800"}', "", JSON, 422),
    "half a pair beside it": (b'{"image":"QUJD","x":"\\ud800"}', "", JSON, 200),
    "a list for a body": (_json([TEXT]), "", JSON, 422),
    "a string for a body": (_json(TEXT), "", JSON, 422),
    "null for a body": (b"null", "", JSON, 422),
    "an empty body": (b"", "", JSON, 422),
    "blanks for a body": (b"  ", "", JSON, 422),
    "no JSON": (b'{"image":"QUJD"', "", JSON, 422),
    "more than JSON": (PLAIN + b"}", "", JSON, 422),
    "a comma too many": (b'{"image":"QUJD",}', "", JSON, 422),
    "single quotes": (b"{'image':'QUJD'}", "", JSON, 422),
    "deep": (b'{"image":' + b"[" * 200 + b"]" * 200 + b"}", "", JSON, 422),
    "UTF-16": (PLAIN.decode().encode("utf-16"), "", JSON, 200),
    "UTF-8 with a mark": (b"\xef\xbb\xbf" + PLAIN, "", JSON, 200),
    "no UTF-8": (b'{"image":"\xff\xfe\xfd"}', "", JSON, 400),
    "no base64": (b'{"image":"QQ="}', "", JSON, 422),
    "no base64, long": (_json({"image": HUGE + "A"}), "", JSON, 422),
    "line breaks": (_json({"image": "QUJD\r\nQUJD\n"}), "", JSON, 200),
    "other characters": (_json({"image": "QU-JD\u00e4"}), "", JSON, 200),
    "a prefix": (_json({"image": "data:image/png;base64,QUJD"}), "", JSON, 422),
    "too large": (_json({"image": "A" * MAX_BODY_BYTES}), "", JSON, 413),
}


@pytest.mark.slow
@pytest.mark.parametrize("in_pieces", [False, True], ids=["length", "chunked"])
async def test_both_ways_answer_alike(ways: Ways, in_pieces: bool) -> None:
    """Status, headers and body are the same by either way, whatever is sent."""
    for case, (content, query, content_type, status) in CASES.items():
        headers = {} if content_type is None else {"content-type": content_type}
        answers = []
        for way in ("short", "general"):
            body = _pieces(content) if in_pieces else content
            answers.append(await _ask(ways, way, f"/api/v1/run/m{query}", body, **headers))
        short, general = answers
        assert short.status_code == general.status_code == status, (case, general.text)
        assert short.content == general.content, case
        assert _headers(short) == _headers(general), case
        assert ("content-length" in short.request.headers) is not in_pieces


SHORT = ["plain", "no content type", "charset", "escapes", "line breaks", "bytes", "an image"]


@pytest.mark.parametrize("case", SHORT)
async def test_the_usual_request_takes_the_short_way(ways: Ways, case: str) -> None:
    """What clients send is not left to the app; else the test above says nothing."""
    content, _, content_type, _ = CASES[case]
    headers = {} if content_type is None else {"content-type": content_type}
    await _ask(ways, "short", "/api/v1/run/m", content, **headers)
    assert ways.told.plain == 1


@pytest.mark.parametrize("name", ["absent", "busy", "a%20b", "%C3%A4", "x.y-z", "a%0Ab"])
async def test_names_and_failures_are_answered_alike(ways: Ways, name: str) -> None:
    """Errors of ours, and names that have to be decoded."""
    answers = [
        await _ask(ways, way, f"/api/v1/run/{name}", PLAIN, **{"content-type": JSON})
        for way in ("short", "general")
    ]
    assert answers[0].status_code == answers[1].status_code
    assert answers[0].content == answers[1].content
    assert _headers(answers[0]) == _headers(answers[1])
    assert answers[0].headers["x-request-id"] == "same"
    assert ways.told.asked[0] == ways.told.asked[1]


async def test_several_images_are_answered_in_order(ways: Ways) -> None:
    """Each as it would be alone, by one caller, with an id of its own; what is broken says so."""
    encoded = {"images": [TEXT, "QQ=", "QUJD"]}
    answer = await _ask(ways, "general", "/api/v1/run/m", _json(encoded))
    first, broken, last = answer.json()["results"]
    assert (first, last) == ({"category": f"m:{IMAGE.hex()}"}, {"category": f"m:{b'ABC'.hex()}"})
    assert (broken["code"], broken["request_id"]) == ("image_invalid", "same.1")
    assert [asked["request_id"] for asked in ways.told.asked] == ["same.0", "same.2"]
    assert {asked["key"] for asked in ways.told.asked} == {"same"}
    assert answer.headers["x-model-version"] == "3"
    form = await _ask(
        ways, "general", "/api/v1/run/m", _form(IMAGE, b"ABC"), **{"content-type": FORM}
    )
    assert form.json()["results"] == [first, last]
    one = await _ask(ways, "general", "/api/v1/run/m", _form(IMAGE), **{"content-type": FORM})
    assert one.json() == first


async def test_several_images_of_no_model_are_one_refusal(ways: Ways) -> None:
    """What is wrong with the call is said once; what is wrong with an image, for that image."""
    encoded = _json({"images": [TEXT, TEXT]})
    assert (await _ask(ways, "general", "/api/v1/run/absent", encoded)).status_code == 409
    busy = (await _ask(ways, "general", "/api/v1/run/busy", encoded)).json()["results"]
    assert [result["code"] for result in busy] == ["overloaded", "overloaded"]


async def test_both_ways_count_alike(ways: Ways) -> None:
    """Endpoint, model, version, status, code, category, stages and bytes."""
    for name in ("m", "absent"):
        for way in ("short", "general"):
            await _ask(ways, way, f"/api/v1/run/{name}", PLAIN, **{"content-type": JSON})
    counted = ways.told.counted
    assert len(counted) == 4
    for short, general in zip(counted[::2], counted[1::2], strict=True):
        assert short.total_s > 0
        short.total_s = general.total_s = 0.0
        assert short == general


async def test_a_crash_is_an_answer_and_no_more(ways: Ways) -> None:
    """A fault of our own is 500 in the usual shape, is counted, and ends no connection."""
    async with httpx.AsyncClient(base_url=ways.url("short"), trust_env=False) as client:
        answer = await client.post("/api/v1/run/crash", content=PLAIN)
        assert answer.status_code == 500
        assert answer.json()["code"] == "internal_error"
        assert answer.headers["x-request-id"] == answer.json()["request_id"]
        assert (await client.post("/api/v1/run/m", content=PLAIN)).status_code == 200
    assert [seen.status for seen in ways.told.counted] == [500, 200]
    assert ways.told.counted[0].code == "internal_error"


async def test_a_caller_is_known_by_either_way(ways: Ways) -> None:
    """By the rollout key alone; a well-formed request id is kept, another replaced."""
    sent = [
        {"x-rollout-key": "k", "x-api-key": "a"},
        {"x-api-key": "a"},
        {"authorization": "Bearer b", "x-api-key": "a"},
        {"x-rollout-key": "", "x-api-key": "a"},
        {},
    ]
    for headers in sent:
        for way in ("short", "general"):
            await _ask(ways, way, "/api/v1/run/m", PLAIN, **headers)
    keys = [asked["key"] for asked in ways.told.asked]
    assert keys == ["k", "k", *(None,) * 8]
    for way in ("short", "general"):
        answer = await _ask(ways, way, "/api/v1/run/m", PLAIN, **{"x-request-id": "no good"})
        assert len(answer.headers["x-request-id"]) == 32


async def _exchange(port: int, sent: bytes, answers: int) -> bytes:
    """Send bytes as they are; return what comes back, up to so many answers or the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    got = b""
    while got.count(b"HTTP/1.1 ") < answers or not got.endswith(b"}"):
        piece = await reader.read(65536)
        if not piece:
            break
        got += piece
    writer.close()
    return got


def _request(name: str, *headers: str, version: str = "1.1") -> bytes:
    lines = [f"POST /api/v1/run/{name} HTTP/{version}", "Host: t", f"Content-Length: {len(PLAIN)}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + PLAIN


@pytest.mark.parametrize("way", ["short", "general"])
async def test_requests_sent_at_once_are_answered_in_turn(ways: Ways, way: str) -> None:
    """Pipelined, and of both kinds: each gets its answer, in the order of the requests."""
    listed = b"POST /api/v1/nothing HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n"
    sent = _request("a") + listed + _request("b") + _request("c?top_k=1") + _request("d")
    got = await _exchange(ways.ports[way], sent, 5)
    statuses = [part[:3] for part in got.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"404", b"200", b"200", b"200"]
    assert [asked["name"] for asked in ways.told.asked] == ["a", "b", "c", "d"]
    places = [got.index(f'"{name}:'.encode()) for name in "abcd"]
    assert places == sorted(places)


@pytest.mark.parametrize("way", ["short", "general"])
async def test_a_last_request_ends_the_connection(ways: Ways, way: str) -> None:
    """`Connection: close` and HTTP/1.0: the answer says close, and the connection ends."""
    for request in (_request("m", "Connection: close"), _request("m", version="1.0")):
        reader, writer = await asyncio.open_connection("127.0.0.1", ways.ports[way])
        writer.write(request)
        got = await reader.read()  # up to the end
        assert got.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in got
        writer.close()


@pytest.mark.parametrize("way", ["short", "general"])
async def test_a_client_that_asks_first_may_go_on(ways: Ways, way: str) -> None:
    """`Expect: 100-continue` is answered before the body is sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", ways.ports[way])
    request = _request("m", "Expect: 100-continue")
    writer.write(request[: -len(PLAIN)])
    assert (await reader.readline()).startswith(b"HTTP/1.1 100")
    writer.write(PLAIN)
    await reader.readuntil(b"HTTP/1.1 200")
    writer.close()


async def test_a_caller_that_goes_away_is_counted(ways: Ways) -> None:
    """Within the body: 499, and nothing is run. While it is answered: nothing breaks."""
    _, writer = await asyncio.open_connection("127.0.0.1", ways.ports["short"])
    writer.write(_request("m")[:-10])
    await writer.drain()
    writer.close()
    await ways.told.counted_one.wait()
    assert [seen.status for seen in ways.told.counted] == [499]
    assert ways.told.counted[0].endpoint == "run"
    assert ways.told.asked == []
    ways.told.counted_one.clear()
    ways.told.hold = asyncio.Event()
    _, writer = await asyncio.open_connection("127.0.0.1", ways.ports["short"])
    writer.write(_request("m"))
    await ways.told.asked_one.wait()
    writer.close()
    ways.told.hold.set()
    await ways.told.counted_one.wait()
    assert ways.told.counted[1].version == 3
    answer = await _ask(ways, "short", "/api/v1/run/m", PLAIN)
    assert answer.status_code == 200


def _longest(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    members: Iterable[Any] = ()
    if isinstance(value, dict):
        members = [*value.keys(), *value.values()]
    elif isinstance(value, list):
        members = value
    return max((_longest(member) for member in members), default=0)


@pytest.mark.parametrize(
    "body",
    [
        {"imag": HUGE},
        {"image": [HUGE]},
        {"image": {"data": HUGE}},
        {HUGE: 1},
        {"image": HUGE + "A"},
        [HUGE, HUGE],
        HUGE,
        {"image": list(range(9000))},
        {"image": {str(number): number for number in range(5000)}},
        {"image": {"a": {"b": {"c": {"d": HUGE}}}}},
    ],
    ids=lambda body: str(body)[:20],
)
@pytest.mark.parametrize("content_type", [JSON, "text/plain"])
async def test_a_refusal_does_not_send_the_image_back(
    ways: Ways, body: object, content_type: str
) -> None:
    """What does not validate is said back in its beginnings; the list's shape is FastAPI's."""
    answer = await _ask(
        ways, "short", "/api/v1/run/m", _json(body), **{"content-type": content_type}
    )
    assert answer.status_code == 422
    assert len(answer.content) < 2500
    told = answer.json()
    for place in told["detail"]:
        assert {"type", "loc", "msg", "input"} <= place.keys()
    assert _longest([place["input"] for place in told["detail"]]) <= 101


async def test_a_short_input_is_said_back_whole(ways: Ways) -> None:
    """Up to a hundred characters, numbers and small objects stay as they were sent."""
    sent = {"imag": "x" * 100, "n": [1, 2.5, True, None, {"a": "b"}]}
    answer = await _ask(ways, "short", "/api/v1/run/m", _json(sent))
    (place,) = answer.json()["detail"]
    assert place["loc"] == ["body", "image"]
    assert place["input"] == {**sent, "n": [1, 2.5, True, None, "…"]}
