"""The contract that scripts depend on, call by call: the gateway's bytes are the original's."""

import base64
import io
import json
import threading
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

Encoded = str


def _image(width: int, height: int, mode: str = "RGB", form: str = "PNG") -> bytes:
    channels = {"RGB": 3, "RGBA": 4}[mode]
    noise = np.random.default_rng(width * 10_007 + height)
    # Smooth over large images: noise would take seconds to compress.
    shape = (min(height, 64), min(width, 64), channels)
    # A tint of its own, so that images differ in what the models look at: the mean colour.
    small = (noise.random(shape) * noise.integers(20, 256, channels)).astype(np.uint8)
    image = Image.fromarray(small, mode).resize((width, height))
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def _base64(data: bytes) -> Encoded:
    return base64.b64encode(data).decode()


@pytest.fixture
def loaded(client: httpx.Client, original: httpx.Client) -> None:
    for classes in (5, 8, 10):
        for server in (client, original):
            assert (
                server.post("/api/v1/load", params={"name": f"model_{classes}"}).status_code == 200
            )


def _unload_all(client: httpx.Client, original: httpx.Client) -> None:
    for classes in (5, 8, 10):
        for server in (client, original):
            server.post("/api/v1/unload", params={"name": f"model_{classes}"})


def test_list_names_every_model_and_skips_the_broken_one(
    client: httpx.Client, original: httpx.Client
) -> None:
    """`list` is a JSON array of names, loaded or not; a file that is no model is left out."""
    answer = client.get("/api/v1/list")
    assert answer.status_code == 200
    assert answer.content == original.get("/api/v1/list").content
    assert answer.json() == ["model_10", "model_5", "model_8"]


def test_load_and_unload_answer_the_integer_200(
    client: httpx.Client, original: httpx.Client
) -> None:
    """The body of a load, of a second load and of an unload is exactly `200`."""
    _unload_all(client, original)
    for call in ("load", "load", "unload"):
        for server in (client, original):
            answer = server.post(f"/api/v1/{call}", params={"name": "model_5"})
            assert (answer.status_code, answer.content) == (200, b"200"), call
            assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [
        ("POST", "/api/v1/load?name=nowhere", 404, "Model with name nowhere not found."),
        ("POST", "/api/v1/unload?name=nowhere", 409, "No model with name nowhere has been loaded."),
        ("POST", "/api/v1/unload?name=model_8", 409, "No model with name model_8 has been loaded."),
        ("POST", "/api/v1/run/model_8", 409, "No model with name model_8 has been loaded."),
        ("POST", "/api/v1/run/nowhere", 409, "No model with name nowhere has been loaded."),
    ],
)
def test_errors_keep_their_text(
    client: httpx.Client, original: httpx.Client, method: str, path: str, status: int, detail: str
) -> None:
    """Each error of the table has its status and its `detail`, with our fields beside it."""
    _unload_all(client, original)
    body = {"image": _base64(_image(3, 3))} if "/run/" in path else None
    answers = [server.request(method, path, json=body) for server in (client, original)]
    for answer in answers:
        assert answer.status_code == status
        assert answer.json()["detail"] == detail
    ours = answers[0].json()
    assert ours["code"] in {"model_not_found", "model_not_loaded"}
    assert ours["request_id"] == answers[0].headers["x-request-id"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'"text"',
        b'{"image": null}',
        b'{"image": 7}',
        b'{"image": "abcde"}',
        b'{"picture": "aGk="}',
    ],
)
@pytest.mark.parametrize("content_type", ["application/json", "text/plain", None])
def test_a_body_that_does_not_validate_keeps_the_list(
    client: httpx.Client, original: httpx.Client, body: bytes, content_type: str | None
) -> None:
    """A 422 of schema validation carries FastAPI's list under `detail`, to the byte."""
    headers = {"content-type": content_type} if content_type else {}
    answers = [
        server.post("/api/v1/run/model_5", content=body, headers=headers)
        for server in (client, original)
    ]
    assert [answer.status_code for answer in answers] == [422, 422]
    assert answers[0].json()["detail"] == answers[1].json()["detail"]
    assert isinstance(answers[0].json()["detail"], list)


def test_a_missing_name_keeps_the_list(client: httpx.Client, original: httpx.Client) -> None:
    """`load` and `unload` without a name answer FastAPI's list."""
    for call in ("load", "unload"):
        ours, theirs = (server.post(f"/api/v1/{call}") for server in (client, original))
        assert ours.status_code == theirs.status_code == 422
        assert ours.json()["detail"] == theirs.json()["detail"]


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize(
    "size", [(1, 1), (1, 7), (2, 3), (31, 33), (224, 224), (815, 803), (4000, 3000)]
)
def test_run_answers_the_same_bytes(
    client: httpx.Client, original: httpx.Client, size: tuple[int, int], mode: str
) -> None:
    """`run` answers exactly `{"category": "07"}` as the original does, for 1×1 to 4000×3000."""
    body = {"image": _base64(_image(*size, mode))}
    for classes in (5, 8, 10):
        answers = [
            server.post(f"/api/v1/run/model_{classes}", json=body) for server in (client, original)
        ]
        assert answers[0].status_code == 200
        assert answers[0].content == answers[1].content


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize("form", ["JPEG", "WEBP", "BMP", "TIFF"])
def test_run_takes_every_common_format(
    client: httpx.Client, original: httpx.Client, form: str
) -> None:
    """JPEG, WebP, BMP and TIFF give the original's bytes too."""
    body = {"image": _base64(_image(61, 47, form=form))}
    answers = [server.post("/api/v1/run/model_10", json=body) for server in (client, original)]
    assert answers[0].content == answers[1].content


_LENIENT: dict[str, Callable[[Encoded], Encoded]] = {
    "newlines": lambda text: "\n".join(text[i : i + 76] for i in range(0, len(text), 76)) + "\n",
    "carriage returns": lambda text: "\r\n".join(text[i : i + 60] for i in range(0, len(text), 60)),
    "quotes around": lambda text: f'"{text}"',
    "single quotes around": lambda text: f"'{text}'",
    "blanks": lambda text: " ".join(text[i : i + 10] for i in range(0, len(text), 10)),
    "text after the padding": lambda text: text + "=",
}


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize("how", sorted(_LENIENT))
def test_characters_outside_the_alphabet_are_skipped(
    client: httpx.Client, original: httpx.Client, how: str
) -> None:
    """Base64 with newlines, quotes and blanks in it is read as pydantic's Base64Bytes reads it."""
    body = {"image": _LENIENT[how](_base64(_image(17, 19)))}
    answers = [server.post("/api/v1/run/model_10", json=body) for server in (client, original)]
    assert answers[0].status_code == 200
    assert answers[0].content == answers[1].content


@pytest.mark.usefixtures("loaded")
def test_json_without_a_content_type_is_read(client: httpx.Client) -> None:
    """A client that does not say that it sends JSON is answered."""
    content = json.dumps({"image": _base64(_image(5, 5))}).encode()
    ours = client.post("/api/v1/run/model_10", content=content)
    assert (ours.status_code, list(ours.json())) == (200, ["category"])
    assert "content-type" not in ours.request.headers


@pytest.mark.usefixtures("loaded")
def test_a_data_url_is_refused_with_the_cure(client: httpx.Client) -> None:
    """A `data:` prefix is not part of the contract: 422 that says to drop it."""
    body = {"image": "data:image/png;base64," + _base64(_image(5, 5))}
    answer = client.post("/api/v1/run/model_10", json=body)
    assert answer.status_code == 422
    assert answer.json()["code"] == "image_invalid"
    assert "data:" in answer.json()["detail"]


@pytest.mark.usefixtures("loaded")
def test_run_carries_the_headers_of_an_answer(client: httpx.Client) -> None:
    """`run` names the request, the version that answered, and the time of each stage."""
    body = {"image": _base64(_image(5, 5))}
    answer = client.post("/api/v1/run/model_10", json=body, headers={"X-Request-ID": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.headers["x-model-version"] == "1"
    timing = answer.headers["server-timing"]
    assert [part.split(";")[0].strip() for part in timing.split(",")] == [
        "decode",
        "queue",
        "infer",
    ]
    odd = client.post("/api/v1/run/model_10", json=body, headers={"X-Request-ID": "a b;c"})
    assert odd.headers["x-request-id"] != "a b;c"


@pytest.mark.usefixtures("loaded")
def test_an_original_script_runs_unchanged(client: httpx.Client, original: httpx.Client) -> None:
    """List, load, run, unload, run again: the whole life of a script, answer by answer."""

    def script(server: Any) -> list[tuple[int, bytes]]:
        image = {"image": _base64(_image(64, 48))}
        calls = [("POST", "/api/v1/unload?name=model_8", None), ("GET", "/api/v1/list", None)]
        calls += [("POST", "/api/v1/load?name=model_8", None)]
        answers = [server.request(m, p, json=b) for m, p, b in calls]
        answers += [server.post("/api/v1/run/model_8", json=image) for _ in range(3)]
        answers += [server.post("/api/v1/unload?name=model_8")]
        return [(answer.status_code, answer.content) for answer in answers]

    assert script(client) == script(original)


@pytest.mark.usefixtures("loaded")
def test_answers_do_not_mix_under_concurrency(client: httpx.Client, original: httpx.Client) -> None:
    """Eight callers at once each get the answer to their own image."""
    images = [_base64(_image(9 + 7 * i, 11 + 5 * i)) for i in range(8)]
    expected = [
        original.post("/api/v1/run/model_10", json={"image": image}).content for image in images
    ]
    assert len(set(expected)) > 1
    wrong: list[bytes] = []

    def ask(index: int) -> None:
        for _ in range(10):
            got = client.post("/api/v1/run/model_10", json={"image": images[index]}).content
            if got != expected[index]:
                wrong.append(got)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
