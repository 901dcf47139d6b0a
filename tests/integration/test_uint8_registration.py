"""Registered models that take raw pixels are published with a uint8 input: seen over HTTP."""

import base64
import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper
from PIL import Image

from gateway.converter.publish import published_versions, read_published
from testbed.gateway_process import GatewayProcess, running_gateway
from tests.hostile_models import graph_model
from tests.model_family import classifier_case

_FREE = (None, None, None, 3)
_NO_TRITON = {"TRITON_URLS": "http://127.0.0.1:9"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with running_gateway(tmp_path_factory.mktemp("uint8")) as process:
        yield process


def _model(seed: int, shape: Any = _FREE) -> bytes:
    return bytes(classifier_case("m", shape, seed=seed).make().SerializeToString())


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _scores(gateway: GatewayProcess, name: str, pixels: np.ndarray[Any, Any]) -> list[float]:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    answer = gateway.client.post(
        f"/api/v1/run/{name}",
        params={"top_k": 1000},
        json={"image": base64.b64encode(buffer.getvalue()).decode()},
    )
    assert answer.status_code == 200, answer.text
    found = {score["category"]: score["score"] for score in answer.json()["scores"]}
    return [found[category] for category in sorted(found)]


def _directly(content: bytes, tensor: np.ndarray[Any, Any]) -> list[float]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options)
    scores = session.run(None, {"image": tensor.astype(np.float32)})[0]
    return [float(score) for score in scores.reshape(-1)]


def test_it_answers_what_the_upload_answers(gateway: GatewayProcess) -> None:
    """UINT8 in signature and config.pbtxt; both digests and the change are told; same scores."""
    content = _model(1)
    answer = gateway.register("bytes", content, load="true")
    assert answer["inputs"] == [{"name": "image", "dtype": "UINT8", "shape": list(_FREE)}]
    assert answer["source_digest"] == _digest(content)
    published = gateway.folder / "repository/bytes/1/model.onnx"
    assert answer["digest"] == _digest(published.read_bytes()) != answer["source_digest"]
    assert answer["size_bytes"] == published.stat().st_size
    (change,) = answer["changes"]
    assert "takes UINT8 instead of FP32" in change
    detail = gateway.client.get("/api/v1/models/bytes/versions/1").json()
    assert (detail["changes"], detail["source_digest"]) == ([change], answer["source_digest"])
    stages = {stage["name"]: stage["facts"] for stage in detail["validation"]["stages"]}
    assert stages["trial"]["changes"] == [change]
    config = (gateway.folder / "repository/bytes/config.pbtxt").read_text()
    assert "TYPE_UINT8" in config
    assert "max_batch_size: 8" in config
    shown = subprocess.run(
        [sys.executable, "-m", "gateway", "versions", "bytes", "1", "--url", gateway.url],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert " ".join(change.split()) in " ".join(shown.split())
    assert answer["source_digest"] in shown
    pixels = np.random.default_rng(1).integers(0, 256, (21, 34, 3)).astype(np.uint8)
    assert _scores(gateway, "bytes", pixels) == _directly(content, pixels[np.newaxis])


def test_a_record_that_only_resizes_keeps_the_values(gateway: GatewayProcess) -> None:
    """Pillow's pixels are 0-255 still; a record that scales them leaves the graph alone."""
    content = _model(2, (None, 3, 8, 8))
    record = {"layout": "NCHW", "size": [8, 8], "resize": "stretch", "interpolation": "bicubic"}
    resized = gateway.register("resized", content, preprocessing=json.dumps(record), load="true")
    assert resized["inputs"][0]["dtype"] == "UINT8"
    pixels = np.random.default_rng(2).integers(0, 256, (30, 17, 3)).astype(np.uint8)
    small = np.asarray(Image.fromarray(pixels).resize((8, 8), Image.Resampling.BICUBIC))
    wanted = _directly(content, small.transpose(2, 0, 1)[np.newaxis])
    assert _scores(gateway, "resized", pixels) == wanted
    for name, parameters in {
        "normalised": {"preprocessing": "imagenet"},
        "scaled": {"preprocessing": "unit"},
        "unknown": {},
    }.items():
        plain = gateway.register(name, content, **parameters)
        assert plain["inputs"][0]["dtype"] == "FP32"
        assert plain["changes"] == []
        assert plain["digest"] == plain["source_digest"] == _digest(content)


def test_the_graph_is_kept_where_that_is_asked_for(gateway: GatewayProcess) -> None:
    """keep_graph is part of what makes an upload the same one, in the query and in a form."""
    content = _model(3)
    client = gateway.client
    fed = gateway.register("kept", content)
    kept = gateway.register("kept", content, keep_graph="true")
    assert (fed["version"], kept["version"]) == (1, 2)
    assert (kept["changes"], kept["digest"]) == ([], _digest(content))
    form = client.post(
        "/api/v1/register",
        params={"name": "kept"},
        files={"file": ("m.onnx", content)},
        data={"keep_graph": "true"},
    ).json()
    assert (form["version"], form["message"]) == (2, "Model already registered")
    assert gateway.register("kept", content)["version"] == 1
    assert gateway.register("kept", content, keep_graph="false")["version"] == 1
    refused = client.post(
        "/api/v1/register",
        params={"name": "kept"},
        files={"file": ("m.onnx", content)},
        data={"keep_graph": "perhaps"},
    )
    assert (refused.status_code, refused.json()["code"]) == (422, "upload_invalid")


def test_a_new_version_takes_what_the_champion_takes(gateway: GatewayProcess) -> None:
    """So that both are loaded side by side; `keep_graph=false` is stronger."""
    first = gateway.register("champion", _model(4), keep_graph="true", load="true")
    second = gateway.register("champion", _model(5), load="true")
    assert [v["inputs"][0]["dtype"] for v in (first, second)] == ["FP32", "FP32"]
    assert gateway.client.get("/api/v1/models/champion").json()["loaded"] == [1, 2]
    assert gateway.register("champion", _model(5))["version"] == 2
    third = gateway.register("champion", _model(5), keep_graph="false")
    assert (third["version"], third["inputs"][0]["dtype"]) == (3, "UINT8")


def test_the_same_bytes_with_another_record_are_judged_by_the_upload(
    gateway: GatewayProcess,
) -> None:
    """A version that takes bytes cannot be normalised, the file that it was made of can."""
    content = _model(6)
    assert gateway.register("judged", content)["inputs"][0]["dtype"] == "UINT8"
    unit = gateway.register("judged", content, preprocessing="unit")
    assert (unit["version"], unit["inputs"][0]["dtype"]) == (2, "FP32")
    assert gateway.register("judged", content, preprocessing="unit")["version"] == 2


def test_what_cannot_be_compared_is_published_as_it_is(gateway: GatewayProcess) -> None:
    """A graph that answers at random is not seen to answer the same: kept, with a warning."""
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("RandomNormalLike", ["mean"], ["noise"]),
        helper.make_node("Add", ["mean", "noise"], ["scores"]),
    ]
    answer = gateway.register("random", graph_model(nodes).SerializeToString())
    assert answer["changes"] == []
    assert answer["digest"] == answer["source_digest"]
    assert any("published as it is" in warning for warning in answer["warnings"])


def test_a_folder_of_models_is_published_with_uint8_inputs(tmp_path: Path) -> None:
    """KEEP_GRAPH turns it off; what is published is not published again, nor changed."""
    models, repository = tmp_path / "models", tmp_path / "repository"
    models.mkdir()
    (models / "first.onnx").write_bytes(_model(1))

    def start(**settings: str) -> dict[str, list[str]]:
        environment = {"MODELS_DIR": str(models), **_NO_TRITON, **settings}
        with running_gateway(tmp_path, environment=environment):
            return {
                name: [
                    read_published(repository, name, version).signature.inputs[0].dtype
                    for version in published_versions(repository, name)
                ]
                for name in ("first", "second")
            }

    assert start() == {"first": ["UINT8"], "second": []}
    (models / "second.onnx").write_bytes(_model(2))
    before = (repository / "first/1/model.onnx").read_bytes()
    assert start(KEEP_GRAPH="true") == {"first": ["UINT8", "FP32"], "second": ["FP32"]}
    # Its champion takes floats, which the same file goes on to do.
    assert start() == {"first": ["UINT8", "FP32"], "second": ["FP32"]}
    assert (repository / "first/1/model.onnx").read_bytes() == before


def test_what_lies_in_a_repository_is_left_alone(tmp_path: Path) -> None:
    """Adopted versions are never rewritten, whatever their graph takes."""
    content = _model(7)
    place = tmp_path / "repository/adopted/1"
    place.mkdir(parents=True)
    (place / "model.onnx").write_bytes(content)
    with running_gateway(tmp_path, environment=_NO_TRITON) as gateway:
        detail = gateway.client.get("/api/v1/models/adopted/versions/1").json()
        assert detail["inputs"][0]["dtype"] == "FP32"
        assert (detail["changes"], detail["digest"]) == ([], _digest(content))
        # A version that is to replace it takes what it takes.
        beside = gateway.register("adopted", _model(8))
        assert (beside["version"], beside["inputs"][0]["dtype"]) == (2, "FP32")
    assert (place / "model.onnx").read_bytes() == content
