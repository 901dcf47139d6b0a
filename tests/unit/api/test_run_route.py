"""The short way of a run and the general one: the same request, the same status and body."""

import base64
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Query, Request, Response

from gateway.api import error_handlers
from gateway.api.metering import Metering
from gateway.api.plain_errors import PlainErrors
from gateway.api.request_context import RequestContext
from gateway.api.run_route import run_route
from gateway.api.schemas import RunRequest

IMAGE = b"\0\1\2 an image \xff" * 20
TEXT = base64.b64encode(IMAGE).decode()
PLAIN = json.dumps({"image": TEXT}).encode()
MAX_BODY_BYTES = 100_000
JSON = "application/json"
HUGE = "A" * 40_000


def _answered(name: str, image: bytes) -> Response:
    return Response(json.dumps({"name": name, "image": image.hex()}), media_type=JSON)


async def _short(request: Request, name: str, image: bytes) -> Response:
    request.app.state.short += 1
    return _answered(name, image)


async def _general(name: str, body: RunRequest, top_k: int | None = Query(None, ge=1)) -> Response:
    assert top_k is None or top_k > 0
    return _answered(name, body.image)


@pytest.fixture(scope="module")
def app() -> FastAPI:
    """Make an app with both ways under one path each, and all that stands around them."""
    app = FastAPI(strict_content_type=False)
    app.state.short = 0
    short = APIRouter(route_class=run_route(_short))
    short.post("/short/{name}")(_general)
    general = APIRouter()
    general.post("/general/{name}")(_general)
    for router in (short, general):
        app.include_router(router, max_body_size=MAX_BODY_BYTES)
    error_handlers.install(app)
    for middleware in (PlainErrors, RequestContext, Metering):
        app.add_middleware(middleware)
    return app


async def _ask(
    app: FastAPI, path: str, content: bytes | AsyncIterator[bytes], **headers: str
) -> httpx.Response:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
        request = client.build_request("POST", path, content=content)
        for name, value in {"x-request-id": "same", **headers}.items():
            request.headers[name] = value
        return await client.send(request)


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 50):
        yield content[start : start + 50]


def _json(body: object) -> bytes:
    return json.dumps(body).encode()


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
    "bytes": (IMAGE, "", "application/octet-stream", 422),
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


@pytest.mark.parametrize("in_pieces", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("case", list(CASES))
async def test_both_ways_answer_alike(app: FastAPI, case: str, in_pieces: bool) -> None:
    """Status and body are the same by either way, also where the length is not said."""
    content, query, content_type, status = CASES[case]
    answers = []
    headers = {} if content_type is None else {"content-type": content_type}
    for way in ("short", "general"):
        body = _pieces(content) if in_pieces else content
        answers.append(await _ask(app, f"/{way}/m{query}", body, **headers))
    short, general = answers
    assert short.status_code == general.status_code == status, general.text
    assert short.content == general.content
    assert short.headers["content-type"] == general.headers["content-type"]
    assert ("content-length" in short.request.headers) is not in_pieces


@pytest.mark.parametrize("case", ["plain", "no content type", "charset", "escapes", "line breaks"])
async def test_the_usual_request_takes_the_short_way(app: FastAPI, case: str) -> None:
    """What clients send is not left to the general way; else the test above says nothing."""
    content, query, content_type, _ = CASES[case]
    before = app.state.short
    headers = {} if content_type is None else {"content-type": content_type}
    await _ask(app, f"/short/m{query}", content, **headers)
    assert app.state.short == before + 1


@pytest.mark.parametrize("name", ["m", "a%20b", "%C3%A4", "x.y-z", "a%0Ab"])
async def test_names_arrive_alike(app: FastAPI, name: str) -> None:
    """The model's name in the path is decoded alike by both ways."""
    short = await _ask(app, f"/short/{name}", PLAIN)
    general = await _ask(app, f"/general/{name}", PLAIN)
    assert short.content == general.content


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
    app: FastAPI, body: object, content_type: str
) -> None:
    """What does not validate is said back in its beginnings; the list's shape is FastAPI's."""
    answer = await _ask(app, "/short/m", _json(body), **{"content-type": content_type})
    assert answer.status_code == 422
    assert len(answer.content) < 2500
    told = answer.json()
    for place in told["detail"]:
        assert {"type", "loc", "msg", "input"} <= place.keys()
    assert _longest([place["input"] for place in told["detail"]]) <= 101


async def test_a_short_input_is_said_back_whole(app: FastAPI) -> None:
    """Up to a hundred characters, numbers and small objects stay as they were sent."""
    sent = {"imag": "x" * 100, "n": [1, 2.5, True, None, {"a": "b"}]}
    answer = await _ask(app, "/short/m", _json(sent))
    (place,) = answer.json()["detail"]
    assert place["loc"] == ["body", "image"]
    assert place["input"] == {**sent, "n": [1, 2.5, True, None, "…"]}


@pytest.mark.parametrize("way", ["short", "general"])
async def test_a_caller_that_goes_away_is_no_crash(app: FastAPI, way: str) -> None:
    """A connection that ends within the body: no exception leaves the app, and nothing is run."""
    said: list[Any] = []
    before = app.state.short
    messages = iter(
        [
            {"type": "http.request", "body": PLAIN[:50], "more_body": True},
            {"type": "http.disconnect"},
            {"type": "http.disconnect"},
        ]
    )

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        said.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": f"/{way}/m",
        "raw_path": f"/{way}/m".encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(PLAIN)).encode()),
        ],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    await app(scope, receive, send)
    assert app.state.short == before
    assert said[0]["status"] < 500
