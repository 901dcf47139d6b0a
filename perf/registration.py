"""
Measure registration with a real CNN, and compare its answers with the pipeline it was trained with.

    python perf/registration.py MODEL.onnx PHOTOGRAPHS/

MODEL.onnx is what tools/demo/efficientnet_lite0/export.py wrote, PHOTOGRAPHS the folder `data` of
scikit-image. Prints the time from the upload's first byte to the first answer, the top-1 and top-5
agreement with the reference pipeline, and the gateway's peak memory while 1 GB is uploaded.
"""

import base64
import hashlib
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from tests.gateway_process import GatewayProcess, running_gateway  # noqa: E402 - needs the path

DEMO = ROOT / "tools/demo/efficientnet_lite0"
REPEATS = 5
UPLOAD_BYTES = 1_000_000_000


def png(path: Path) -> tuple[str, str]:
    """Give a photograph as base64 of a lossless file, and the digest of its pixels."""
    image = Image.open(path).convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    digest = hashlib.sha256(np.asarray(image).tobytes()).hexdigest()
    return base64.b64encode(buffer.getvalue()).decode(), digest


def first_answer_s(gateway: GatewayProcess, name: str, content: bytes, image: str) -> list[float]:
    """Register, load and run; give the time after each."""
    record, began_s, marks = (DEMO / "preprocessing.json").read_text(), time.perf_counter(), []
    answer = gateway.client.post(
        "/api/v1/register",
        params={"name": name},
        files={"file": content},
        data={"preprocessing": record},
    )
    assert answer.status_code == 200, answer.text
    marks.append(time.perf_counter() - began_s)
    assert gateway.client.post("/api/v1/load", params={"name": name}).status_code == 200
    marks.append(time.perf_counter() - began_s)
    assert gateway.client.post(f"/api/v1/run/{name}", json={"image": image}).status_code == 200
    marks.append(time.perf_counter() - began_s)
    gateway.client.post("/api/v1/unload", params={"name": name})
    return marks


def compare(gateway: GatewayProcess, content: bytes, photographs: Path) -> None:
    """Compare the five best classes of each photograph with the reference's."""
    record = (DEMO / "preprocessing.json").read_text()
    gateway.client.post(
        "/api/v1/register",
        params={"name": "lite0", "load": "true"},
        files={"file": content},
        data={"preprocessing": record},
    )
    expected = json.loads((DEMO / "expected.json").read_text())
    first = five = 0
    apart = 0.0
    for name, reference in expected.items():
        image, digest = png(photographs / name)
        assert digest == reference["pixels"], f"{name} is another photograph"
        answer = gateway.client.post(
            "/api/v1/run/lite0", params={"top_k": 5}, json={"image": image}
        ).json()
        got = [int(score["category"]) for score in answer["scores"]]
        first += got[0] == reference["categories"][0]
        five += got == reference["categories"]
        apart = max(apart, abs(answer["scores"][0]["score"] - reference["logits"][0]))
    print(f"top-1 equal: {first} of {len(expected)}; top-5 in the same order: {five}")
    print(f"largest difference of the best logit: {apart:.2g}")


def upload_memory(gateway: GatewayProcess) -> None:
    """Upload 1 GB that is no model; watch the gateway's resident memory."""
    process, peak = psutil.Process(gateway.process.pid), 0
    before = process.memory_info().rss
    piece = bytes(1_000_000)

    def pieces() -> Iterator[bytes]:
        nonlocal peak
        for _ in range(UPLOAD_BYTES // len(piece)):
            yield piece
            peak = max(peak, process.memory_info().rss)

    began_s = time.perf_counter()
    answer = gateway.client.post("/api/v1/register", params={"name": "big"}, content=pieces())
    took_s = time.perf_counter() - began_s
    after = process.memory_info().rss
    print(
        f"1 GB upload: {answer.status_code} {answer.json()['code']} after {took_s:.1f} s; gateway "
        f"{before / 1e6:.0f} MB before, {peak / 1e6:.0f} MB at most, {after / 1e6:.0f} MB after"
    )


def main() -> None:
    """Measure and print."""
    content, photographs = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
    image, _ = png(photographs / "chelsea.png")
    with tempfile.TemporaryDirectory() as folder, running_gateway(Path(folder)) as gateway:
        compare(gateway, content, photographs)
        marks = [first_answer_s(gateway, f"m{n}", content, image) for n in range(REPEATS)]
        registered, loaded, answered = (
            statistics.median(column) for column in zip(*marks, strict=True)
        )
        print(
            f"{len(content) / 1e6:.1f} MB from upload to first answer: {answered:.2f} s (median of "
            f"{REPEATS}: registered after {registered:.2f} s, loaded after {loaded:.2f} s)"
        )
        upload_memory(gateway)


if __name__ == "__main__":
    main()
