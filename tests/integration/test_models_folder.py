"""MODELS_DIR on a real Triton: the folder is the truth, and what serves goes on meanwhile."""

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from testbed.gateway_process import GatewayProcess, running_gateway
from testbed.rollout_family import PICTURES
from testbed.rollout_load import Load
from testbed.signature_family import colours
from tests.eventually import eventually
from tests.hostile_models import graph_model

pytestmark = pytest.mark.alone

_JSON = {"Content-Type": "application/json"}


def _raw_colours(path: Path, **changed: Any) -> None:
    """Write a classifier that takes 20 x 20 raw pixels; appears whole."""
    part = path.with_suffix(".part")
    part.write_bytes(colours(side=20, scaled=True, **changed))
    part.rename(path)


def _planes(path: Path) -> None:
    """Write a classifier of channels-first floats, whose weights lie beside it."""
    factors = numpy_helper.from_array(np.eye(3, dtype=np.float32), "factors")
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["mean", "factors"], ["scores"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, "H", "W"])
    model = graph_model(nodes, inputs=[image], weights=[factors])
    onnx.save(
        model,
        path,
        save_as_external_data=True,
        location=f"{path.name}.data",
        size_threshold=0,
    )


def _run(gateway: GatewayProcess, name: str, query: str = "") -> httpx.Response:
    return gateway.client.post(
        f"/api/v1/run/{name}{query}", content=PICTURES[0].body, headers=_JSON
    )


def _load(gateway: GatewayProcess, name: str) -> int:
    return gateway.client.post("/api/v1/load", params={"name": name}).status_code


def _answers_with(gateway: GatewayProcess, name: str, version: int) -> bool:
    return bool(_run(gateway, name).headers.get("x-model-version") == str(version))


def _unloadable(path: Path) -> None:
    """Write a model of four classes whose operator nobody knows: it publishes, and never loads."""
    model = onnx.load_from_string(colours(side=20, scaled=True, classes=4))
    model.graph.node.insert(0, helper.make_node("Nonsense", ["image"], ["made"], domain="nobody"))
    model.graph.node[1].input[0] = "made"
    model.opset_import.append(helper.make_opsetid("nobody", 1))
    part = path.with_suffix(".part")
    part.write_bytes(model.SerializeToString())
    part.rename(path)


async def test_what_serves_goes_on_until_its_successor_is_ready(tmp_path: Path) -> None:
    """
    Under load: a file that cannot be loaded changes nothing, a good one of other classes takes
    over, `load` right behind a change answers by the new file; no request fails.
    """
    models = tmp_path / "models"
    models.mkdir()
    _raw_colours(models / "m.onnx")
    _planes(models / "planes.onnx")
    (models / "planes.json").write_text('{"preset": "unit"}')
    (models / "planes.txt").write_text("red\ngreen\nblue\n")
    with running_gateway(tmp_path, environment={"MODELS_DIR": str(models)}) as gateway:
        # What lies beside a file is its record and its labels, and its weights.
        assert _load(gateway, "planes") == 200
        best = json.loads(_run(gateway, "planes", "?top_k=1").content)["scores"][0]
        assert best["label"] in {"red", "green", "blue"}
        (models / "planes.txt").write_text("rot\ngrün\nblau\n", encoding="utf-8")
        assert _load(gateway, "planes") == 200
        assert _answers_with(gateway, "planes", 2)
        assert _load(gateway, "m") == 200
        with Load(gateway.url, "m", PICTURES, clients=4) as clients:
            _unloadable(models / "m.onnx")
            await eventually(lambda: any("could not be loaded" in li for li in gateway.output))
            assert _answers_with(gateway, "m", 1)
            _raw_colours(models / "m.onnx", classes=5)
            await eventually(lambda: _answers_with(gateway, "m", 3))
            for seed in (1, 2, 3):
                _raw_colours(models / "m.onnx", seed=seed)
                assert _load(gateway, "m") == 200
                assert _answers_with(gateway, "m", 3 + seed)
        assert clients.errors == []
        assert set(clients.statuses) == {200}
        assert clients.wrong == 0
        # The graph says that it answers probabilities; they are not squeezed a second time.
        plain, squeezed = (
            json.loads(_run(gateway, "m", f"?top_k=3&softmax={flag}").content)["scores"]
            for flag in ("false", "true")
        )
        assert plain == squeezed


async def test_the_path_is_the_folder_whatever_it_leads_to(tmp_path: Path) -> None:
    """
    A link that is flipped, a link's new target, a swapped folder and a deleted file are noticed,
    the last also after a restart; a folder that is away says nothing.
    """
    for folder in ("blue", "green"):
        (tmp_path / folder).mkdir()
        _raw_colours(tmp_path / folder / "m.onnx", seed=len(folder))
    _raw_colours(tmp_path / "blue" / "gone.onnx")
    _raw_colours(tmp_path / "blue" / "kept.onnx")
    _raw_colours(tmp_path / "green" / "kept.onnx")
    link = tmp_path / "models"
    link.symlink_to("blue")
    environment = {"MODELS_DIR": str(link)}
    with running_gateway(tmp_path, environment=environment) as gateway:
        for name in ("m", "gone", "kept"):
            assert _load(gateway, name) == 200
        (tmp_path / "flipped").symlink_to("green")
        (tmp_path / "flipped").rename(link)
        await eventually(lambda: _answers_with(gateway, "m", 2))
        await eventually(lambda: gateway.client.get("/api/v1/list").json() == ["kept", "m"])
        assert _load(gateway, "gone") == 404
        assert _run(gateway, "gone").status_code == 409
        _raw_colours(tmp_path / "elsewhere.onnx", seed=9)
        (tmp_path / "green/m.onnx").unlink()
        (tmp_path / "green/m.onnx").symlink_to(tmp_path / "elsewhere.onnx")
        await eventually(lambda: _answers_with(gateway, "m", 3))
        _raw_colours(tmp_path / "elsewhere.onnx", seed=10)
        await eventually(lambda: _answers_with(gateway, "m", 4))
        (tmp_path / "green").rename(tmp_path / "away")
        await eventually(lambda: any("cannot be read" in line for line in gateway.output))
        assert _answers_with(gateway, "m", 4)
        (tmp_path / "away").rename(tmp_path / "green")
    with running_gateway(tmp_path, environment=environment) as gateway:
        assert gateway.client.get("/api/v1/list").json() == ["kept", "m"]
        assert _load(gateway, "gone") == 404
        # Somebody may register what the folder has taken away, the same bytes too.
        content = (tmp_path / "blue" / "gone.onnx").read_bytes()
        assert gateway.register("gone", content)["version"] == 1
        assert gateway.client.get("/api/v1/list").json() == ["gone", "kept", "m"]
        _raw_colours(tmp_path / "green" / "gone.onnx")
        assert _load(gateway, "gone") == 200
        assert _answers_with(gateway, "gone", 1)
