"""What callers get is what Pillow, float32 and onnxruntime give on the same machine, to the bit."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from PIL import Image

from testbed.gateway_process import GatewayProcess, running_gateway
from tests.model_family import classifier_case

_SHAPE = (None, None, None, 3)
_MODEL: bytes = classifier_case("m", _SHAPE, seed=5).make().SerializeToString()


_WAYS = {
    "decoded-by-triton": {},
    "in-shared-memory": {"TRITON_DECODES": "false"},
    "in-the-body": {"TRITON_DECODES": "false", "SHARED_MEMORY": "off"},
}


@pytest.fixture(scope="module", params=list(_WAYS))
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """Every way in which an image gets into Triton."""
    folder = tmp_path_factory.mktemp(request.param)
    with running_gateway(folder, environment=_WAYS[request.param]) as process:
        process.register("exact", _MODEL, load="true")
        yield process


def _photograph(mode: str, size: tuple[int, int]) -> Image.Image:
    rng = np.random.default_rng(sum(size))
    coarse = rng.integers(0, 256, (size[1] // 8 + 1, size[0] // 8 + 1, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)


def _file(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _corpus() -> Iterator[tuple[str, bytes]]:
    for size in ((311, 207), (33, 17), (1, 1)):
        colour = _photograph("RGB", size)
        for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
            for progressive in (False, True):
                name = f"jpeg {size} {subsampling} progressive={progressive}"
                options: dict[str, Any] = {"subsampling": subsampling, "progressive": progressive}
                yield name, _file(colour, "JPEG", quality=87, **options)
        yield f"png {size}", _file(colour, "PNG")
        yield f"webp {size}", _file(colour, "WEBP")
        yield f"rgba {size}", _file(_photograph("RGBA", size), "PNG")
        yield f"grey jpeg {size}", _file(_photograph("L", size), "JPEG")
        yield f"palette {size}", _file(colour.quantize(64), "GIF")
        yield f"cmyk {size}", _file(_photograph("CMYK", size), "JPEG")


def _directly(session: onnxruntime.InferenceSession, encoded: bytes) -> NDArray[np.float32]:
    with Image.open(io.BytesIO(encoded)) as image:
        pixels = np.asarray(image if image.mode in {"RGB", "RGBA"} else image.convert("RGB"))
    tensor = pixels[np.newaxis, :, :, :3].astype(np.float32)
    (scores,) = session.run(None, {"image": tensor})
    return np.asarray(scores, np.float32).reshape(-1)


def test_scores_are_those_of_the_reference_to_the_bit(
    gateway: GatewayProcess,
) -> None:
    """Category and every score equal Pillow + float32 + onnxruntime, with as many threads."""
    options = onnxruntime.SessionOptions()
    config = (gateway.folder / "repository/exact/config.pbtxt").read_text()
    _, _, after = config.partition('key: "intra_op_thread_count"')
    options.intra_op_num_threads = int(after.split('string_value: "')[1].split('"')[0])
    session = onnxruntime.InferenceSession(_MODEL, options)
    for name, encoded in _corpus():
        wanted = _directly(session, encoded)
        body = {"image": base64.b64encode(encoded).decode()}
        plain = gateway.client.post("/api/v1/run/exact", json=body)
        assert plain.json() == {"category": f"{int(np.argmax(wanted)):02d}"}, name
        scored = gateway.client.post("/api/v1/run/exact", params={"top_k": 1000}, json=body)
        got = {int(each["category"]): each["score"] for each in scored.json()["scores"]}
        scores = np.array([got[index] for index in range(len(wanted))], np.float32)
        np.testing.assert_array_equal(scores, wanted, err_msg=name)


@pytest.mark.parametrize("cut", [30, 700, -40])
def test_a_damaged_image_is_refused_alike(gateway: GatewayProcess, cut: int) -> None:
    """Wherever it would be decoded, a JPEG that ends early is refused with the same code."""
    encoded = _file(_photograph("RGB", (311, 207)), "JPEG")[:cut]
    body = {"image": base64.b64encode(encoded).decode()}
    answer = gateway.client.post("/api/v1/run/exact", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "image_truncated")


def test_bad_images_do_not_close_the_model_to_others(gateway: GatewayProcess) -> None:
    """However many images in a row are refused, the next good one is answered."""
    good, bad = _file(_photograph("RGB", (33, 17)), "JPEG"), b"\xff\xd8\xff\xe0 no image"
    statuses = [
        gateway.client.post(
            "/api/v1/run/exact", json={"image": base64.b64encode(content).decode()}
        ).status_code
        for content in (*[good[:-100]] * 8, *[bad] * 8, good)
    ]
    assert statuses == [422] * 16 + [200]


def test_every_body_says_the_same(gateway: GatewayProcess) -> None:
    """Base64, the image itself, a form and a list: the same scores, errors and headers."""
    url, query = "/api/v1/run/exact", {"top_k": "5"}
    images = [encoded for _, encoded in _corpus()][::5]
    images += [images[0][:-40], b"", b"\xff\xd8\xff\xe0 no image"]
    alone = []
    for encoded in images:
        text = base64.b64encode(encoded).decode()
        for params in ({}, query):
            bodies: list[dict[str, Any]] = [
                {"json": {"image": text}},
                {"content": encoded, "headers": {"content-type": "image/jpeg"}},
                {"content": encoded, "headers": {"content-type": "application/octet-stream"}},
                {"files": {"image": ("x", encoded)}},
            ]
            answers = [gateway.client.post(url, params=params, **body) for body in bodies]
            said = [{**each.json(), "request_id": ""} for each in answers]
            assert said == [said[0]] * len(bodies)
            assert {each.status_code for each in answers} == {answers[0].status_code}
            assert {"server-timing", "x-model-version"} & set(answers[0].headers) == {
                name for name in ("server-timing", "x-model-version") if answers[0].is_success
            }
        alone.append(said[0])
    several = gateway.client.post(
        url, params=query, json={"images": [base64.b64encode(each).decode() for each in images]}
    )
    form = gateway.client.post(url, params=query, files=[("image", ("x", i)) for i in images])
    for batch in (several, form):
        assert batch.status_code == 200
        results = batch.json()["results"]
        assert [{**each, "request_id": ""} for each in results] == alone
        ids = {f"{batch.headers['x-request-id']}.{n}" for n in range(len(images))}
        assert {each["request_id"] for each in results if "code" in each} <= ids
