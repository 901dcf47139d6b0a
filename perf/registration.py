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
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from testbed.gateway_process import GatewayProcess, running_gateway  # noqa: E402 - needs the path

DEMO = ROOT / "tools/demo/efficientnet_lite0"
REPEATS = 5
WIDTH = 15_800


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


def large_model() -> bytes:
    """Make a model of 1 GB: the mean colour through a square matrix."""
    rng = np.random.default_rng(0)
    shapes = {"first": (3, WIDTH), "square": (WIDTH, WIDTH), "last": (WIDTH, 5)}
    weights = [
        numpy_helper.from_array(rng.random(shape, dtype=np.float32) / WIDTH, name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["mean", "first"], ["a"]),
        helper.make_node("MatMul", ["a", "square"], ["b"]),
        helper.make_node("MatMul", ["b", "last"], ["scores"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", "H", "W", 3])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 5])
    graph = helper.make_graph(nodes, "large", [image], [scores], weights)
    opset = [helper.make_opsetid("", 13)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


def peak_memory_bytes(gateway: GatewayProcess) -> int:
    """Read the largest resident size that the gateway has had, from the kernel."""
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def upload_memory(gateway: GatewayProcess) -> None:
    """Register a model of 1 GB, from the first byte to the record; compare the gateway's peaks."""
    content = large_model()
    before, began_s = peak_memory_bytes(gateway), time.perf_counter()
    answer = gateway.client.post("/api/v1/register", params={"name": "big"}, content=content)
    took_s = time.perf_counter() - began_s
    after = peak_memory_bytes(gateway)
    print(
        f"{len(content) / 1e9:.2f} GB model: {answer.status_code} after {took_s:.1f} s; the "
        f"gateway's peak memory: {before / 1e6:.0f} MB before, {after / 1e6:.0f} MB after"
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
