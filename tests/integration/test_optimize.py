"""A faster challenger of a champion, made, measured, registered, evaluated and rolled out."""

import io
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper
from PIL import Image
from typer.testing import CliRunner

from gateway.cli import app
from testbed.gateway_process import GatewayProcess, running_gateway
from testbed.rollout_family import COLOURS
from tests.eventually import eventually

_DOCUMENT = Path(__file__).parents[2] / "docs/optimization.md"
_SIDE, _CHANNELS, _IMAGES = 48, 32, 120
_CALIBRATING = 20


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with running_gateway(tmp_path_factory.mktemp("optimize")) as process:
        process.register("cnn", _colour_cnn())
        process.register("bare", _colour_cnn(seed=2))
        process.client.post("/api/v1/load", params={"name": "cnn"}).raise_for_status()
        put = process.client.put("/api/v1/models/cnn/evaluation-set", content=_set(labels=True))
        assert put.status_code == 200, put.text
        yield process


def _graph(nodes: list[NodeProto], weights: list[np.ndarray], output: list[Any]) -> bytes:
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", _SIDE, _SIDE, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(each, f"w{index}") for index, each in enumerate(weights)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def _colour_cnn(seed: int = 1) -> bytes:
    """Make a CNN with random convolutions whose last layer is fitted to name three colours."""
    random = np.random.default_rng(seed)
    weights = [
        np.array(1 / 255, np.float32),
        random.normal(0, 0.3, (_CHANNELS, 3, 3, 3)).astype(np.float32),
        random.normal(0, 0.08, (_CHANNELS, _CHANNELS, 3, 3)).astype(np.float32),
    ]
    nodes = [
        helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["planes", "w0"], ["unit"]),
        helper.make_node("Conv", ["unit", "w1"], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
    ]
    flat = helper.make_node("Flatten", ["e"], ["scores"])
    features = onnxruntime.InferenceSession(_graph([*nodes, flat], weights, ["n", _CHANNELS]))
    pixels = np.stack([_pixels(index) for index in range(60)]).astype(np.float32)
    (found,) = features.run(None, {"image": pixels})
    truth = np.eye(3, dtype=np.float32)[np.arange(60) % 3]
    fitted = np.linalg.lstsq(found, truth, rcond=None)[0].astype(np.float32)
    flat = helper.make_node("Flatten", ["e"], ["f"])
    last = helper.make_node("MatMul", ["f", "w3"], ["scores"])
    return _graph([*nodes, flat, last], [*weights, fitted], ["n", 3])


def _pixels(index: int) -> np.ndarray:
    """Draw an image whose colour is that of its index, with noise."""
    noise = np.random.default_rng(index).integers(-30, 31, (_SIDE, _SIDE, 3))
    return np.clip(np.array(COLOURS[index % 3]) + noise, 0, 255).astype(np.uint8)


def _set(*, labels: bool) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for index in range(_IMAGES):
            encoded = io.BytesIO()
            Image.fromarray(_pixels(index)).save(encoded, "PNG")
            archive.writestr(f"{index}.png", encoded.getvalue())
        if labels:
            lines = "\n".join(f"{index}.png,{index % 3}" for index in range(_IMAGES))
            archive.writestr("labels.csv", lines)
    return content.getvalue()


def _optimize(gateway: GatewayProcess, name: str, content: bytes = b"", **asked: Any) -> Any:
    return gateway.client.post(
        f"/api/v1/models/{name}/optimize",
        params={"images": _CALIBRATING, "least_speedup": 0, "least_agreement": 0.9} | asked,
        content=content,
        headers={"Content-Type": "application/octet-stream"},
    )


def test_a_dry_run_registers_nothing(gateway: GatewayProcess) -> None:
    """The table alone: the version itself, two candidates, no new version."""
    answer = _optimize(gateway, "cnn", dry_run=True)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["made_of"], found["version"]) == (1, None)
    assert (found["calibrated_on"], found["judged_on"]) == (_CALIBRATING, _IMAGES - _CALIBRATING)
    assert found["itself"]["accuracy"] == 1.0
    assert {each["name"][:4] for each in found["candidates"]} == {"u8s8", "s8s8"}
    for candidate in found["candidates"]:
        assert candidate["size_bytes"] < found["itself"]["size_bytes"]
        assert candidate["agreement"] >= 0.9
        assert candidate["speedup"] > 0
    assert gateway.client.get("/api/v1/models/cnn").json()["versions"] == [1]


async def test_a_challenger_says_what_it_was_made_of_and_is_judged_on_other_images(
    gateway: GatewayProcess,
) -> None:
    """Registered, validated, with its provenance; it answers; its calibration is not judged."""
    found = _optimize(gateway, "cnn").json()
    assert found["version"] == 2, found["reason"]
    shown = gateway.client.get("/api/v1/models/cnn/versions/2").json()
    facts = {stage["name"]: stage["facts"] for stage in shown["validation"]["stages"]}
    provenance = facts["file"]["provenance"]
    assert provenance["from_version"] == 1
    assert (
        provenance["from_digest"]
        == gateway.client.get("/api/v1/models/cnn/versions/1").json()["digest"]
    )
    assert provenance["recipe"] == found["candidates"][found["chosen"]]["name"]
    evaluation_set = gateway.client.get("/api/v1/models/cnn/evaluation-set").json()
    assert provenance["calibration"] == {
        "digest": evaluation_set["digest"],
        "images": _CALIBRATING,
    }
    path = "/api/v1/models/cnn/versions/2/evaluation"
    await eventually(lambda: gateway.client.get(path).status_code == 200, within_s=60)
    judged = gateway.client.get(path).json()
    assert judged["evaluation"]["images"] == _IMAGES - _CALIBRATING
    assert judged["comparison"]["images"] == _IMAGES - _CALIBRATING
    assert gateway.client.post("/api/v1/load", params={"name": "cnn", "version": 2}).is_success
    again = _optimize(gateway, "cnn").json()
    assert again["version"] == 2 or again["chosen"] != found["chosen"]


def test_the_commands_of_the_document_run(gateway: GatewayProcess, tmp_path: Path) -> None:
    """Every block of docs/optimization.md: none fails; 3 where this machine gains nothing."""
    blocks = re.findall(r"^```bash\n(.*?)^```", _DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    with zipfile.ZipFile(io.BytesIO(_set(labels=False))) as archive:
        archive.extractall(tmp_path / "photographs")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for block in blocks:
        done = subprocess.run(
            ["bash", "-euc", block.replace("flowers", "cnn")],
            cwd=tmp_path,
            env={**os.environ, "GATEWAY_URL": gateway.url, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        allowed = {0, 3} if "gateway optimize" in block else {0}
        assert done.returncode in allowed, f"{block}\n{done.stdout}\n{done.stderr}"
    assert len(blocks) == 4


def test_what_is_not_worth_it_is_said_and_not_registered(
    gateway: GatewayProcess, tmp_path: Path
) -> None:
    """Exit code 3 and the reason where a hundred times the speed is asked for, by the command."""
    before = gateway.client.get("/api/v1/models/bare").json()["versions"]
    images = tmp_path / "images"
    images.mkdir()
    with zipfile.ZipFile(io.BytesIO(_set(labels=False))) as archive:
        archive.extractall(images)
    arguments = ["optimize", "bare", "--images", str(images), "--url", gateway.url]
    done = CliRunner().invoke(app, [*arguments, "--least-speedup", "100"])
    assert done.exit_code == 3, done.output
    assert "Calibrated on 30 images, judged on 90 others." in done.output
    assert "this machine" in done.output
    assert gateway.client.get("/api/v1/models/bare").json()["versions"] == before


@pytest.mark.parametrize(
    ("name", "content", "asked", "status", "code"),
    [
        ("bare", b"", {}, 404, "evaluation_not_found"),
        ("nobody", b"", {}, 404, "model_not_found"),
        ("cnn", b"", {"version": "9"}, 404, "version_not_found"),
        ("bare", b"no zip", {}, 422, "evaluation_set_invalid"),
        ("bare", b"PK\5\6" + bytes(18), {}, 422, "not_optimizable"),
        ("cnn", b"", {"least_agreement": "2"}, 422, None),
    ],
)
def test_what_cannot_be_done_is_said(
    gateway: GatewayProcess,
    name: str,
    content: bytes,
    asked: dict[str, str],
    status: int,
    code: str | None,
) -> None:
    """No images, no model, no zip, no such parameter: each its own answer."""
    answer = _optimize(gateway, name, content, **asked)
    assert answer.status_code == status, answer.text
    assert code is None or answer.json()["code"] == code
