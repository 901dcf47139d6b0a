"""What every route has in common: one error shape, honest documents, limits, health."""

import base64
import gzip
import io
import json
import re
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from PIL import Image

from testbed.gateway_process import GatewayProcess, running_gateway
from tests.model_family import original_model


def _encoded(width: int = 8, height: int = 8, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (9, 99, 199)).save(buffer, form)
    return buffer.getvalue()


def _body(data: bytes) -> dict[str, str]:
    return {"image": base64.b64encode(data).decode()}


def _bomb() -> bytes:
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 99))):
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        parts.append(struct.pack(">I", len(body)) + kind + body + checksum)
    return b"".join(parts)


@pytest.fixture(scope="module")
def small_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway with narrow limits: two requests at once, two waiting, one megabyte."""
    folder = tmp_path_factory.mktemp("small")
    models = folder / "models"
    models.mkdir()
    original_model(models / "m.onnx", 10)
    environment = {
        "MODELS_DIR": str(models),
        "MAX_CONCURRENT_RUNS": "2",
        "MAX_WAITING_RUNS": "2",
        "MAX_BODY_BYTES": "1000000",
        "MAX_IMAGE_PIXELS": "1000000",
    }
    with running_gateway(folder, environment=environment) as process:
        assert process.client.post("/api/v1/load", params={"name": "m"}).content == b"200"
        yield process


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 422, "image_invalid"),
        (b"\0\1\2", 422, "image_invalid"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 422, "image_invalid"),
        (_encoded(64, 64, "JPEG")[:-200], 422, "image_truncated"),
        (_bomb(), 413, "image_too_large"),
    ],
    ids=["empty", "noise", "svg", "truncated", "bomb"],
)
def test_a_bad_image_has_its_status_and_code(
    small_gateway: GatewayProcess, data: bytes, status: int, code: str
) -> None:
    """Each kind of bad image is refused by its own code, in the one shape."""
    answer = small_gateway.client.post("/api/v1/run/m", json=_body(data))
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert set(answer.json()) == {"detail", "code", "request_id"}


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_refused(small_gateway: GatewayProcess, chunked: bool) -> None:
    """More bytes than the limit: 413, whether the length was told or not."""
    large = json.dumps({"image": "A" * 1_200_000}).encode()
    content: Any = (large[i : i + 65536] for i in range(0, len(large), 65536)) if chunked else large
    answer = small_gateway.client.post("/api/v1/run/m", content=content)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("DELETE", "/api/v1/list", 405, "method_not_allowed"),
        ("POST", "/api/v1/load?name=nobody", 404, "model_not_found"),
        ("POST", "/api/v1/run/%2e%2e%2fm", 404, "not_found"),
        ("POST", "/api/v1/load?name=..%2f..%2fetc", 404, "model_not_found"),
        ("POST", "/api/v1/run/%00", 422, "request_invalid"),
    ],
)
def test_every_error_has_the_one_shape(
    small_gateway: GatewayProcess, method: str, path: str, status: int, code: str
) -> None:
    """Also what the framework refuses carries detail, code and the request's id."""
    answer = small_gateway.client.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_an_overload_is_answered_at_once_and_does_not_grow(small_gateway: GatewayProcess) -> None:
    """Forty callers on four places: 200 or 429 with Retry-After, nothing else; then it recovers."""
    body = _body(_encoded(900, 900))
    heard: Counter[int] = Counter()
    retry_after: set[str] = set()
    barrier = threading.Barrier(40)

    def ask() -> None:
        with httpx.Client(base_url=small_gateway.url, timeout=60, trust_env=False) as client:
            barrier.wait()
            answer = client.post("/api/v1/run/m", json=body)
            heard[answer.status_code] += 1
            if answer.status_code == 429:
                assert answer.json()["code"] == "overloaded"
                retry_after.add(answer.headers["retry-after"])

    callers = [threading.Thread(target=ask) for _ in range(40)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert set(heard) == {200, 429}
    assert retry_after == {"1"}
    shown = small_gateway.client.get("/metrics").text
    assert 'gateway_refused_requests_total{model="m",reason="queue_full"}' in shown
    assert 'gateway_waiting_runs{model="m"} 0.0' in shown
    assert small_gateway.client.post("/api/v1/run/m", json=body).status_code == 200


def test_health_tells_alive_ready_and_started(small_gateway: GatewayProcess) -> None:
    """All three answer 200 on a healthy gateway, and readiness names what it checked."""
    assert small_gateway.client.get("/livez").json()["ok"]
    assert small_gateway.client.get("/startupz").json()["ok"]
    ready = small_gateway.client.get("/readyz").json()
    assert {"accepting", "replicas", "database", "loads"} <= set(ready["checks"])
    assert ready["degraded"] == []


def test_a_body_that_is_compressed_is_named_as_such(small_gateway: GatewayProcess) -> None:
    """JSON that is gzip: 415; an image that is gzip: 422. Both say so."""
    packed = gzip.compress(b'{"image": ""}')
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    answer = small_gateway.client.post("/api/v1/run/m", content=packed, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "media_type_unsupported")
    assert "gzip" in answer.json()["detail"]
    headers["Content-Type"] = "image/png"
    answer = small_gateway.client.post("/api/v1/run/m", content=packed, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "image_invalid")
    assert "gzip" in answer.json()["detail"]


def test_a_model_is_ready_when_a_run_would_be_answered(small_gateway: GatewayProcess) -> None:
    """By name, by version and by alias; what a run would be refused with is the answer."""
    for query in ("", "?version=1", "?alias=champion"):
        answer = small_gateway.client.get(f"/api/v1/models/m/ready{query}")
        assert answer.json() == {"name": "m", "version": 1, "ready": True}
    for query, code in (("?version=9", "version_not_found"), ("?alias=no", "alias_not_found")):
        answer = small_gateway.client.get(f"/api/v1/models/m/ready{query}")
        assert answer.json()["code"] == code
    absent = small_gateway.client.get("/api/v1/models/nobody/ready")
    assert (absent.status_code, absent.json()["code"]) == (409, "model_not_loaded")


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_the_pages_need_no_internet(small_gateway: GatewayProcess, page: str) -> None:
    """Every script, style and picture of the interactive pages is served by the gateway."""
    text = small_gateway.client.get(page).text
    sources = re.findall(r"""(?:src|href)=["']([^"']+)["']""", text)
    assert sources
    for source in sources:
        assert source.startswith("/"), source
        assert small_gateway.client.get(source).status_code == 200, source


def test_every_route_is_described_with_its_errors(small_gateway: GatewayProcess) -> None:
    """Each operation has a summary, each field a description, each error the one shape."""
    schema = small_gateway.client.get("/openapi.json").json()
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation.get("summary"), where
            for parameter in operation.get("parameters", []):
                assert parameter.get("description"), (where, parameter["name"])
            for status, response in operation["responses"].items():
                if status.startswith("4"):
                    shared = response["$ref"].rpartition("/")[2]
                    content = schema["components"]["responses"][shared]["content"]
                    described = content["application/json"]
                    assert described["schema"]["$ref"].endswith("/ErrorResponse"), where
                    assert described["examples"], where
    undescribed = [
        f"{name}.{field}"
        for name, model in schema["components"]["schemas"].items()
        for field, described in model.get("properties", {}).items()
        if not described.get("description")
    ]
    assert undescribed == []


def test_nothing_of_a_caller_writes_a_log_line_of_its_own(small_gateway: GatewayProcess) -> None:
    """Line breaks and escapes in a name or a header end up escaped, in one line of the log."""
    before = len(small_gateway.output)
    name = 'x\r\n{"event": "forged"}\x1b[31m\u2028'
    small_gateway.client.post("/api/v1/load", params={"name": name})
    small_gateway.client.post(f"/api/v1/run/{quote(name)}", json={"image": ""})
    small_gateway.line_with("forged")
    lines = small_gateway.output[before:]
    assert not any(line.startswith(('{"event": "forged"', "\x1b[31m")) for line in lines)
    assert not any("\u2028" in line or "\x1b" in line for line in lines)


def test_the_repository_has_no_path_in_an_answer(
    small_gateway: GatewayProcess, tmp_path: Path
) -> None:
    """No error's body tells a path of the machine."""
    answers = [
        small_gateway.client.post("/api/v1/load", params={"name": "nobody"}),
        small_gateway.client.post("/api/v1/run/m", json=_body(b"x")),
        small_gateway.client.get("/nowhere"),
    ]
    assert not any(str(tmp_path.parents[1]) in answer.text for answer in answers)


@pytest.mark.parametrize(
    "path", ["/livez", "/readyz", "/metrics", "/api/v1/list", "/docs", "/openapi.json", "/nowhere"]
)
def test_head_is_answered_where_get_is(small_gateway: GatewayProcess, path: str) -> None:
    """The same status and the same headers of the content, and no body."""
    asked, shown = small_gateway.client.head(path), small_gateway.client.get(path)
    assert (asked.status_code, asked.content) == (shown.status_code, b"")
    assert asked.headers["content-type"] == shown.headers["content-type"]
    assert ("content-length" in asked.headers) == ("content-length" in shown.headers)
    # The connection is in order afterwards.
    assert small_gateway.client.get("/livez").json()["ok"]


def test_head_of_a_path_without_get_is_refused(small_gateway: GatewayProcess) -> None:
    """405, which names what is there; where GET is, HEAD is named beside it."""
    refused = small_gateway.client.head("/api/v1/load")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    other = small_gateway.client.patch("/api/v1/models/m")
    assert (other.status_code, other.headers["allow"]) == (405, "DELETE, GET, HEAD")


@pytest.mark.parametrize("name", ["CON", "nul", "com1.x", "model_10."])
def test_a_name_that_some_file_systems_refuse_is_refused(
    small_gateway: GatewayProcess, name: str
) -> None:
    """A repository can be copied to any machine."""
    answer = small_gateway.client.post("/api/v1/register", params={"name": name}, content=b"x")
    assert (answer.status_code, answer.json()["code"]) == (422, "name_invalid")


@pytest.mark.parametrize("given", ['"x"', "seven", '"1", "2"'])
def test_an_unreadable_if_match_is_named(small_gateway: GatewayProcess, given: str) -> None:
    """The answer says which header it is about."""
    answer = small_gateway.client.put(
        "/api/v1/models/m/aliases/a", json={"version": 1}, headers={"If-Match": given}
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "request_invalid")
    assert answer.json()["detail"][0]["loc"] == ["header", "if-match"]


def test_an_empty_alias_is_no_alias(small_gateway: GatewayProcess) -> None:
    """As an empty version is none: whoever sends it has forgotten something."""
    for parameter in ("alias", "version"):
        answer = small_gateway.client.post(
            "/api/v1/run/m", params={parameter: ""}, json=_body(b"x")
        )
        assert (answer.status_code, answer.json()["code"][-7:]) == (422, "invalid"), parameter
