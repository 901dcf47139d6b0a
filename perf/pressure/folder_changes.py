"""MODELS_DIR under load: a broken file, other classes, a load, a deletion, a flipped link."""

import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from testbed.gateway_process import GatewayProcess, running_gateway
from testbed.rollout_family import PICTURES
from testbed.rollout_load import Load

_JSON = {"Content-Type": "application/json"}
_WATCH_S = 4.0


def measure() -> dict[str, object]:
    """Tell, for each change, what callers got and how long until the change was seen."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name in ("blue", "green"):
            (folder / name).mkdir()
            _write(folder / name / "m.onnx", classes=3)
        _write(folder / "blue/gone.onnx", classes=3)
        models = folder / "models"
        models.symlink_to("blue")
        with running_gateway(folder, environment={"MODELS_DIR": str(models)}) as gateway:
            for name in ("m", "gone"):
                gateway.client.post("/api/v1/load", params={"name": name})
            return {
                "a file that cannot be loaded": _under_load(
                    gateway, lambda: _write(models / "m.onnx", classes=4, broken=True)
                ),
                "a file of other classes": _under_load(
                    gateway, lambda: _write(models / "m.onnx", classes=5)
                ),
                "load right after a change": _load_after_change(gateway, models),
                "a file that is deleted": _after_deletion(gateway, models),
                "a flipped link": _after_flip(gateway, folder, models),
            }


def _under_load(gateway: GatewayProcess, change: Callable[[], None]) -> dict[str, object]:
    with Load(gateway.url, "m", PICTURES, clients=2) as clients:
        change()
        time.sleep(_WATCH_S)
    return {"statuses": {str(status): n for status, n in Counter(clients.statuses).items()}}


def _load_after_change(gateway: GatewayProcess, models: Path) -> dict[str, object]:
    took_s, stale = [], 0
    for classes in (6, 7, 8):
        _write(models / "m.onnx", classes=classes)
        began_s = time.monotonic()
        with contextlib.suppress(httpx.TimeoutException):
            gateway.client.post("/api/v1/load", params={"name": "m"}, timeout=20)
        took_s.append(round(time.monotonic() - began_s, 2))
        answer = gateway.client.post(
            "/api/v1/run/m?top_k=20", content=PICTURES[0].body, headers=_JSON
        )
        stale += answer.status_code != 200 or len(answer.json()["scores"]) != classes
    return {"took_s": took_s, "answered by another file": stale}


def _after_deletion(gateway: GatewayProcess, models: Path) -> dict[str, object]:
    (models / "gone.onnx").unlink()
    time.sleep(_WATCH_S)
    load = gateway.client.post("/api/v1/load", params={"name": "gone"})
    return {"list": gateway.client.get("/api/v1/list").json(), "load": load.status_code}


def _after_flip(gateway: GatewayProcess, folder: Path, models: Path) -> dict[str, object]:
    (folder / "flipped").symlink_to("green")
    (folder / "flipped").rename(models)
    began_s = time.monotonic()
    while time.monotonic() - began_s < 2 * _WATCH_S:
        answer = gateway.client.post(
            "/api/v1/run/m?top_k=20", content=PICTURES[0].body, headers=_JSON
        )
        if answer.status_code == 200 and len(answer.json()["scores"]) == 3:
            return {"seen_after_s": round(time.monotonic() - began_s, 2)}
        time.sleep(0.05)
    return {"seen_after_s": None}


def _write(path: Path, *, classes: int, broken: bool = False) -> None:
    """Write a classifier of raw pixels; with `broken` one whose operator nobody knows."""
    weights = numpy_helper.from_array(
        np.random.default_rng(classes).normal(size=(3, classes)).astype(np.float32), "weights"
    )
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["scores"]),
    ]
    if broken:
        nodes.insert(0, helper.make_node("Nonsense", ["image"], ["made"], domain="nobody"))
        nodes[1].input[0] = "made"
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", "H", "W", 3])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", classes])
    graph = helper.make_graph(nodes, "graph", [image], [scores], [weights])
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("nobody", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    part = path.with_suffix(".part")
    onnx.save(model, part)
    part.replace(path)
