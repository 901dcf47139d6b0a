"""What comes over a connection, to the byte: one request in, one answer out, and no side effect."""

import base64
import io
import json
from collections.abc import Iterator

import pytest
from PIL import Image

from testbed.gateway_process import GatewayProcess, running_gateway
from testbed.raw_http import exchange
from tests.model_family import original_model

SMUGGLED = b"POST /api/v1/unload?name=m HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n"
LAST = b"GET /livez HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
OFFERS = {
    "h2c": ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQ"],
    "websocket": ["Connection: upgrade", "Upgrade: websocket"],
    "none": [],
}


@pytest.fixture(scope="module", params=["1", "2"], ids=["one worker", "two workers"])
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("framing")
    models = folder / "models"
    models.mkdir()
    original_model(models / "m.onnx", 10)
    environment = {"MODELS_DIR": str(models), "WORKERS": request.param}
    with running_gateway(folder, environment=environment) as process:
        assert process.client.post("/api/v1/load", params={"name": "m"}).content == b"200"
        yield process


def _request(path: str, *headers: str, body: bytes, chunked: bool) -> bytes:
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    head = "\r\n".join([f"POST {path} HTTP/1.1", "Host: t", *headers, framing, "", ""]).encode()
    return head + (b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if chunked else body)


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize(
    "path", ["/api/v1/run/m", "/api/v1/run/m?top_k=1", "/api/v1/register?name=x"]
)
def test_bytes_of_a_body_are_never_a_request(
    gateway: GatewayProcess, path: str, offer: str, chunked: bool
) -> None:
    """A body that looks like a request is a bad body; the model that it names stays loaded."""
    for together in (True, False):
        sent = _request(path, *OFFERS[offer], body=SMUGGLED, chunked=chunked)
        head, body = sent[: -len(SMUGGLED)], sent[-len(SMUGGLED) :]
        pieces = [sent + LAST] if together else [head, body, LAST]
        statuses = [answer.status for answer in exchange(gateway.url, *pieces)]
        assert statuses == [422, 200]
    # Unloading what is not loaded would be 409.
    assert gateway.client.post("/api/v1/unload", params={"name": "m"}).status_code == 200
    assert gateway.client.post("/api/v1/load", params={"name": "m"}).status_code == 200


@pytest.mark.parametrize("offer", OFFERS)
def test_a_client_that_offers_another_protocol_is_answered(
    gateway: GatewayProcess, offer: str
) -> None:
    """Java's HttpClient and `curl --http2` offer h2c with every request: they get their answer."""
    image = io.BytesIO()
    Image.new("RGB", (8, 8), (9, 99, 199)).save(image, "PNG")
    body = json.dumps({"image": base64.b64encode(image.getvalue()).decode()}).encode()
    sent = _request("/api/v1/run/m", *OFFERS[offer], body=body, chunked=False)
    answers = exchange(gateway.url, sent + sent + LAST)
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert answers[0].json().keys() == {"category"}


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"GET / HTTP/1.1\nHost: t\n\n", 400, "http_invalid"),
        (b"GET / HTTP/1.1\r\nHost: t\r\nX: a\r\n b\r\n\r\n", 400, "http_invalid"),
        (b"GET / HTTP/1.1\r\nHost: t\r\nX: \0\r\n\r\n", 400, "http_invalid"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "http_invalid"),
        (b"GET /\xff HTTP/1.1\r\nHost: t\r\n\r\n", 400, "http_invalid"),
        (b"GET http:// HTTP/1.1\r\nHost: t\r\n\r\n", 400, "http_invalid"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "http_invalid"),
        (b"GET / HTTP/2.0\r\nHost: t\r\n\r\n", 505, "http_version_unsupported"),
        (b"CONNECT t:80 HTTP/1.1\r\nHost: t\r\n\r\n", 405, "method_not_allowed"),
        (
            b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            501,
            "transfer_encoding_unsupported",
        ),
        (b"GET / HTTP/1.1\r\nHost: t\r\nX: " + b"a" * 100_000, 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\nHost: t\r\n" + b"a: b\r\n" * 20_000, 431, "headers_too_large"),
        (
            _request("/api/v1/run/m", "Transfer-Encoding: chunked", body=b"hello", chunked=False),
            400,
            "http_invalid",
        ),
        (
            b"POST /api/v1/run/m HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            400,
            "http_invalid",
        ),
    ],
)
def test_what_is_no_request_is_answered_in_the_one_shape(
    gateway: GatewayProcess, sent: bytes, status: int, code: str
) -> None:
    """Detail, code and an id; the connection ends; a good request before it has its answer."""
    good = b"GET /api/v1/list HTTP/1.1\r\nHost: t\r\n\r\n"
    for before in (b"", good, good * 3):
        *answered, last = exchange(gateway.url, before + sent + LAST)
        assert [answer.status for answer in answered] == [200] * before.count(good)
        assert last.status == status
        assert last.headers["connection"] == "close"
        assert last.json().keys() == {"detail", "code", "request_id"}
        assert last.json()["code"] == code
        assert last.headers["x-request-id"] == last.json()["request_id"]
