"""The Open Inference Protocol over REST: tritonclient against the gateway, and beside Triton."""

import itertools
import json
import time
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from tritonclient.utils import InferenceServerException

from tests.integration.v2.rig import Both
from tests.integration.v2.sent import PIXELS, SIDES, given_images, given_input, image_file


def test_every_call_of_the_client(both: Both) -> None:
    """Tritonclient's whole HTTP interface: answered, or refused in one line."""
    with triton_http.InferenceServerClient(both.url) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("m")
        assert client.is_model_ready("m", "2")
        assert not client.is_model_ready("asleep")
        assert not client.is_model_ready("absent")
        assert client.get_server_metadata()["name"] == "onnx-gateway"
        metadata = client.get_model_metadata("m", "2")
        assert metadata["inputs"][0]["datatype"] == "UINT8"
        assert client.get_model_config("m")["name"] == "m"
        index = client.get_model_repository_index()
        assert [(line["name"], line["version"], line["state"]) for line in index] == [
            ("asleep", "1", "UNAVAILABLE"),
            ("m", "1", "READY"),
            ("m", "2", "READY"),
        ]
        client.load_model("asleep")
        assert client.is_model_ready("asleep")
        client.unload_model("asleep")
        assert not client.is_model_ready("asleep")
        with pytest.raises(InferenceServerException, match="as they were registered"):
            client.load_model("asleep", config="{}")
        before = client.get_inference_statistics("m", "1")["model_stats"][0]["inference_count"]
        client.infer("m", [given_input(PIXELS, binary=True)], model_version="1")
        # Triton counts a run a little after it has answered.
        deadline_s = time.monotonic() + 10
        after = before
        while after != before + len(PIXELS):
            assert time.monotonic() < deadline_s
            after = client.get_inference_statistics("m", "1")["model_stats"][0]["inference_count"]
        assert {each["name"] for each in client.get_inference_statistics()["model_stats"]} >= {"m"}
        asynchronous = client.async_infer("m", [given_input(PIXELS, binary=True)])
        assert asynchronous.get_result().as_numpy("scores").shape == (3, 5)
        for call in (
            client.get_system_shared_memory_status,
            client.get_cuda_shared_memory_status,
            lambda: client.register_system_shared_memory("r", "/r", 64),
            client.unregister_system_shared_memory,
            client.get_trace_settings,
            lambda: client.update_trace_settings("m", {"trace_rate": "1"}),
            client.get_log_settings,
            lambda: client.update_log_settings({"log_verbose_level": 1}),
        ):
            with pytest.raises(InferenceServerException, match="not offered"):
                call()


async def test_the_asynchronous_client(both: Both) -> None:
    """Tritonclient's aio client over the same calls."""
    async with triton_http_aio.InferenceServerClient(both.url) as client:
        assert await client.is_server_ready()
        assert await client.is_model_ready("m", "1")
        assert (await client.get_model_metadata("m"))["name"] == "m"
        assert (await client.get_model_config("m"))["backend"] == "onnxruntime"
        assert len(await client.get_model_repository_index()) == 3
        await client.load_model("asleep")
        await client.unload_model("asleep")
        assert (await client.get_inference_statistics("m"))["model_stats"]
        answer = await client.infer("m", [given_input(PIXELS, binary=True)], request_id="mine")
        assert answer.get_response()["id"] == "mine"
        assert answer.as_numpy("scores").shape == (3, 5)
        for algorithm in ("gzip", "deflate"):
            packed = await client.infer(
                "m", [given_input(PIXELS, binary=True)], request_compression_algorithm=algorithm
            )
            np.testing.assert_array_equal(packed.as_numpy("scores"), answer.as_numpy("scores"))


def _requests() -> Iterator[tuple[str, bytes, dict[str, str]]]:
    """Give requests of many kinds: path, body, headers."""
    outputs: list[list[triton_http.InferRequestedOutput] | None] = [
        None,
        [triton_http.InferRequestedOutput("scores", binary_data=True)],
        [triton_http.InferRequestedOutput("scores", binary_data=False)],
        [triton_http.InferRequestedOutput("scores", binary_data=True, class_count=2)],
        [triton_http.InferRequestedOutput("scores", binary_data=False, class_count=9)],
        [triton_http.InferRequestedOutput("absent", binary_data=True)],
    ]
    for binary, asked, rows, version, request_id in itertools.product(
        (True, False), outputs, (1, 3), ("/versions/1", "/versions/2"), ("", "a/b\u00e4")
    ):
        pixels = PIXELS[:rows, : SIDES[0] - rows]
        body, length = triton_http.InferenceServerClient.generate_request_body(
            [given_input(pixels, binary=binary)],
            outputs=asked,
            request_id=request_id,
            parameters={"some": "thing"} if rows == 3 else None,
        )
        headers = {} if length is None else {"Inference-Header-Content-Length": str(length)}
        yield f"/v2/models/m{version}/infer", body, headers


def _flat(sizes: list[int], datatype: str = "UINT8", **more: Any) -> dict[str, Any]:
    data = [1] * int(np.prod(sizes))
    given = {"name": "image", "shape": sizes, "datatype": datatype, "data": data, **more}
    return {"inputs": [given]}


def _input_of(**more: Any) -> dict[str, Any]:
    """Give a request whose one input has no `data`."""
    return {"inputs": [{"name": "image", "shape": [1, 1, 1, 3], "datatype": "UINT8", **more}]}


DATA: list[Any] = [["a"] * 12, [1.5] * 12, [-1] * 12, None, {}, 7]
SHAPES: list[Any] = ["x", [1.5], [True], None, [2**62], [1, 2**40, 2**40, 3]]
SIZES: list[Any] = ["x", -3, 3, 2**62, 1.5, None]

REFUSED: list[Any] = [
    {},
    {"inputs": []},
    {"inputs": "x"},
    {"inputs": [1]},
    [],
    "text",
    {**_flat([1, 2, 2, 3]), "parameters": 7},
    _flat([1, 2, 2, 4]),
    _flat([2, 2, 3]),
    _flat([1, 2, 2, 3], "FP32"),
    _flat([1, 2, 2, 3], "NONSENSE"),
    _flat([1, 2, 2, 3], name="other"),
    _flat([1, 2, 2, 3], data=[1, 2]),
    _flat([1, 2, 2, 3], data="x"),
    _flat([1, 2, -2, 3]),
    _flat([9, 2, 2, 3]),
    {**_flat([1, 2, 2, 3]), "outputs": [{"name": "absent"}]},
    {"inputs": _flat([1, 2, 2, 3])["inputs"] * 2},
    # Words of Triton's own, about a lost process and a version that is gone.
    _flat([1, 2, 2, 3], name="Stub process is not healthy"),
    {**_flat([1, 2, 2, 3], "FP32"), "id": "x] Request for unknown model"},
    {**_flat([1, 2, 2, 3]), "outputs": [{"name": "is not ready"}]},
    *(_flat([1, 2, 2, 3], data=data) for data in DATA),
    *(_flat([1, 1, 1, 3], shape=shape) for shape in SHAPES),
    _input_of(name=5, data=[1, 1, 1]),
    _input_of(datatype=5, data=[1, 1, 1]),
    *(_input_of(parameters={"binary_data_size": size}) for size in SIZES),
    _input_of(),
    *({**_flat([1, 2, 2, 3]), "outputs": [output]} for output in ({}, {"name": 5}, 7)),
    *(
        {**_flat([1, 2, 2, 3]), "outputs": [{"name": "scores", "parameters": {key: value}}]}
        for key, value in (("classification", "x"), ("classification", -1), ("binary_data", 7))
    ),
    *(
        {**_flat([1, 2, 2, 3]), "parameters": {key: value}}
        for key, value in (("priority", "x"), ("timeout", "x"), ("sequence_start", 5), ("x", [1]))
    ),
]


def test_the_answers_are_those_of_triton(both: Both) -> None:
    """Every kind of request: the status class, the JSON and the tensors, to the byte."""
    count = 0
    for path, body, headers in _requests():
        ours, theirs = both.post(path, content=body, headers=headers)
        assert ours.status_code // 100 == theirs.status_code // 100, (theirs.text, ours.text)
        name = "inference-header-content-length"
        if theirs.is_success:
            assert ours.content == theirs.content
            assert ours.headers.get(name) == theirs.headers.get(name)
        else:
            assert ours.json()["error"] in theirs.json()["error"]
            assert {"detail", "code", "request_id"} <= ours.json().keys()
        count += 1
    assert count == 96


def test_what_triton_would_refuse_is_refused(both: Both) -> None:
    """However many requests are wrong, each is a 4xx, no process dies, and the next is answered."""
    stubs = both.stubs()
    for refused in REFUSED:
        answer = both.gateway.client.post("/v2/models/m/versions/1/infer", json=refused)
        assert answer.status_code // 100 == 4, (refused, answer.text)
        assert answer.json()["error"]
    assert stubs <= {stub.pid for stub in both.gateway.stubs()}
    good = both.gateway.client.post("/v2/models/m/versions/1/infer", json=_flat([1, 2, 2, 3]))
    assert good.status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"inputs":[{"name":"image","shape":[1,1,1,3],"datatype":"UINT8","data":[NaN,1,1]}]}',
        b'{"inputs":[{"name":"im\\u0000","shape":[1,1,1,3],"datatype":"UINT8","data":[1,1,1]}]}',
        b'{"inputs":[{"name":"image","shape":[1e400],"datatype":"UINT8","data":[1]}]}',
    ],
)
def test_odd_json_is_refused(both: Both, body: bytes) -> None:
    """Truncated, too deep, NaN, NUL, infinity: a 4xx in one shape, and the model answers on."""
    answer = both.gateway.client.post("/v2/models/m/infer", content=body)
    assert 400 <= answer.status_code < 500, answer.text
    assert {"error", "detail", "code", "request_id"} <= answer.json().keys()
    assert both.gateway.client.get("/v2/models/m/ready").status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Inference-Header-Content-Length": "7000000"}, 422),
        ({"Inference-Header-Content-Length": "-1"}, 422),
        ({"Inference-Header-Content-Length": "x"}, 422),
        ({"Content-Encoding": "gzip"}, 422),
        ({"Content-Encoding": "br"}, 501),
    ],
)
def test_odd_headers_are_refused(both: Both, headers: dict[str, str], status: int) -> None:
    """A length beyond the body, a compression that is none."""
    body = json.dumps(_flat([1, 2, 2, 3]))
    answer = both.gateway.client.post("/v2/models/m/infer", content=body, headers=headers)
    assert answer.status_code == status
    assert answer.json()["error"]


def test_a_bomb_is_refused(both: Both) -> None:
    """What is small when it arrives and large when it is inflated is too large."""
    bomb = zlib.compress(bytes(100_000_000))
    answer = both.gateway.client.post(
        "/v2/models/m/infer", content=bomb, headers={"Content-Encoding": "deflate"}
    )
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_what_is_the_gateways_own_is_refused(both: Both) -> None:
    """Shared memory, and what the gateway says to its backend."""
    for changed in (
        _flat([1, 2, 2, 3], parameters={"shared_memory_region": "r", "shared_memory_byte_size": 1}),
        {**_flat([1, 2, 2, 3]), "parameters": {"encoded_bytes": 5}},
        {**_flat([1, 2, 2, 3]), "parameters": {"uncontended": True}},
        {
            **_flat([1, 2, 2, 3]),
            "outputs": [{"name": "scores", "parameters": {"shared_memory_region": "r"}}],
        },
    ):
        answer = both.gateway.client.post("/v2/models/m/infer", json=changed)
        assert (answer.status_code, answer.json()["code"]) == (422, "tensor_invalid")


def test_encoded_images_are_what_run_makes_of_them(both: Both) -> None:
    """BYTES in binary, in JSON, as the body itself: the category and the scores of `run`."""
    files = [
        image_file(pixels, kind)
        for pixels, kind in zip(PIXELS, ("PNG", "JPEG", "BMP"), strict=True)
    ]
    wanted = []
    for file in files:
        run = both.gateway.client.post(
            "/api/v1/run/m?top_k=5", content=file, headers={"content-type": "image/x"}
        )
        scores = {int(each["category"]): each["score"] for each in run.json()["scores"]}
        wanted.append([scores[index] for index in range(5)])
    expected = np.array(wanted, np.float32)
    with triton_http.InferenceServerClient(both.url) as client:
        for binary in (True, False):
            batch = client.infer("m", [given_images(*files, binary=binary)])
            np.testing.assert_array_equal(batch.as_numpy("scores"), expected)
            one = client.infer("m", [given_images(files[1], binary=binary)], model_version="1")
            np.testing.assert_array_equal(one.as_numpy("scores"), expected[1:2])
        column = triton_http.InferInput("image", [3, 1], "BYTES")
        column.set_data_from_numpy(np.array(files, np.object_).reshape(3, 1))
        answer = client.infer("m", [column])
        np.testing.assert_array_equal(answer.as_numpy("scores"), expected)
        broken = [files[0], files[1][:-60], files[2]]
        with pytest.raises(InferenceServerException, match="Image 1: "):
            client.infer("m", [given_images(*broken)])
        low = image_file(PIXELS[0, :9], "PNG")
        mixed = client.infer("m", [given_images(files[0], low, low, files[1])]).as_numpy("scores")
        np.testing.assert_array_equal(mixed[[0, 3]], expected[:2])
        with pytest.raises(InferenceServerException, match="at most 64"):
            client.infer("m", [given_images(*files[:1] * 65)])
    body = both.gateway.client.post(
        "/v2/models/m/infer",
        content=files[0],
        headers={"Inference-Header-Content-Length": "0"},
    )
    (output,) = body.json()["outputs"]
    np.testing.assert_array_equal(np.float32(output["data"]), expected[0])


def test_more_images_than_the_model_takes_at_once_are_answered_in_order(both: Both) -> None:
    """Parts of at most max_batch_size go through the model; rows, JSON, errors stay in order."""
    files = [image_file(np.roll(PIXELS[0], shift, 0), "JPEG") for shift in range(20)]
    with triton_http.InferenceServerClient(both.url) as client:
        alone = [client.infer("m", [given_images(file)]).as_numpy("scores") for file in files]
        expected = np.concatenate(alone)
        for binary in (True, False):
            outputs = [triton_http.InferRequestedOutput("scores", binary_data=binary)]
            whole = client.infer("m", [given_images(*files)], outputs=outputs, request_id="mine")
            # A row of a batch may differ from that row alone in the last bit.
            np.testing.assert_allclose(whole.as_numpy("scores"), expected, rtol=1e-5)
            assert whole.get_response()["id"] == "mine"
        best = [triton_http.InferRequestedOutput("scores", class_count=1)]
        named = client.infer("m", [given_images(*files)], outputs=best).as_numpy("scores")
        categories = [int(text[0].split(b":")[1]) for text in named]
        assert categories == expected.argmax(axis=1).tolist()
        broken = [*files[:17], files[17][:-60], *files[18:]]
        with pytest.raises(InferenceServerException, match="Image 17: "):
            client.infer("m", [given_images(*broken)])


def test_the_version_is_chosen_as_for_run(both: Both) -> None:
    """The champion, a number, an alias: in the path, in the query, as a parameter."""
    request = _flat([1, 2, 2, 3])
    client = both.gateway.client
    for path, more, version in (
        ("/v2/models/m/infer", {}, "1"),
        ("/v2/models/m/versions/2/infer", {}, "2"),
        ("/v2/models/m/versions/next/infer", {}, "2"),
        ("/v2/models/m/infer?alias=next", {}, "2"),
        ("/v2/models/m/infer", {"parameters": {"alias": "next"}}, "2"),
    ):
        answer = client.post(path, json={**request, **more}, headers={"x-request-id": "r-1"})
        assert answer.json()["model_version"] == version
        assert answer.headers["x-model-version"] == version
        assert answer.headers["x-request-id"] == "r-1"
        assert "infer;dur=" in answer.headers["server-timing"]
    for path, status in (
        ("/v2/models/absent/infer", 409),
        ("/v2/models/asleep/infer", 409),
        ("/v2/models/m/versions/9/infer", 404),
        ("/v2/models/m/versions/01/infer", 422),
        ("/v2/models/m/versions/nobody/infer", 404),
    ):
        assert client.post(path, json=request).status_code == status


def test_inferences_are_counted_by_version(both: Both) -> None:
    """Stored metrics hold V2 calls under their endpoint, model, version and status."""
    client = both.gateway.client
    query = {"model": "m", "endpoint": "v2_infer", "group_by": "version"}

    def counted() -> dict[str, int]:
        rows = client.get("/api/v1/metrics", params=query).json()["rows"]
        return {str(row["version"]): row["requests"] for row in rows}

    before = counted()
    for version, times in (("1", 2), ("2", 3)):
        for _ in range(times):
            client.post(f"/v2/models/m/versions/{version}/infer", json=_flat([1, 2, 2, 3]))
    after = counted()
    assert after["1"] - before.get("1", 0) == 2
    assert after["2"] - before.get("2", 0) == 3
    shown = client.post(
        "/v2/models/m/infer", json=_flat([1, 2, 2, 3]), headers={"x-request-id": "judged"}
    )
    assert shown.status_code == 200
    judged = client.post("/api/v1/feedback", json={"request_id": "judged", "category": "00"})
    assert judged.status_code == 200
