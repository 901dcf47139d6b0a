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

from tests.gateway_process import GatewayProcess, running_gateway
from tests.model_family import classifier_case

_SHAPE = (None, None, None, 3)
_MODEL: bytes = classifier_case("m", _SHAPE, seed=5).make().SerializeToString()


@pytest.fixture(scope="module", params=["auto", "off"])
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """Both ways to Triton: in shared memory, and in the body."""
    folder = tmp_path_factory.mktemp(f"exact-{request.param}")
    with running_gateway(folder, environment={"SHARED_MEMORY": request.param}) as process:
        answer = process.client.post(
            "/api/v1/register", params={"name": "exact", "load": "true"}, content=_MODEL
        )
        assert answer.status_code == 200, answer.text
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
    for size in ((640, 427), (33, 17), (1, 1)):
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
