"""
The models of onnx's own backend tests, sent to a gateway: light CNNs as real models, and the test
of every operator as a hostile input. Each must be registered and answer what onnxruntime answers,
or be refused with a code.
"""

import base64
import io
import json
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx.backend.test.case.node import collect_testcases
from PIL import Image

from gateway.converter.signature import TensorSignature
from gateway.preprocessing.presets import image_axes
from gateway.preprocessing.record import Preprocessing, check_preprocessing
from testbed.gateway_process import GatewayProcess

DATA = Path(onnx.__file__).parent / "backend/test/data"
BAD = frozenset({"WRONG ANSWER", "HTTP 500", "load failed"})
_NUMPY = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
# The runtime computes these graphs in different orders on different threads.
_RTOL, _ATOL = 1e-3, 1e-5


def models(only: str | None, every: int) -> Iterator[tuple[str, str, bytes]]:
    """Give (group, name, file) of each."""
    if only in {None, "light"}:
        for path in sorted((DATA / "light").glob("*.onnx")):
            yield "light", path.stem, path.read_bytes()
    if only in {None, "disk"}:
        for path in sorted(DATA.glob("[!l]*/*/model.onnx"))[::every]:
            yield "disk", path.parent.name, path.read_bytes()
    if only in {None, "node"}:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cases = collect_testcases()
        for case in cases[::every]:
            if case.model is not None:
                yield "node", case.name, case.model.SerializeToString()


def outcome(gateway: GatewayProcess, name: str, content: bytes, turn: threading.Lock) -> str:
    """Register, load, run and compare; say how far it came."""
    parameters = {"name": name}
    if (record := record_for(content)) is not None:
        parameters["preprocessing"] = record
    answer = gateway.client.post("/api/v1/register", params=parameters, content=content)
    body = answer.json()
    if answer.status_code != 200:
        return "HTTP 500" if answer.status_code >= 500 else str(body["code"])
    with turn:
        loaded = gateway.client.post("/api/v1/load", params={"name": name})
        if loaded.status_code != 200:
            return "load failed"
        try:
            return answers(gateway, name, content, body["inputs"][0], record)
        finally:
            gateway.client.post("/api/v1/unload", params={"name": name})


def record_for(content: bytes) -> str | None:
    """Give a record that sends raw pixels to a model that takes channels first."""
    try:
        wanted = onnx.load_model_from_string(content).graph.input
        given = {tensor.name for tensor in onnx.load_model_from_string(content).graph.initializer}
        shape = next(
            tuple(d.dim_value or None for d in value.type.tensor_type.shape.dim)
            for value in wanted
            if value.name not in given
        )
        tensor = TensorSignature("x", "FP32", shape)
        check_preprocessing(Preprocessing(layout="NCHW"), tensor)
    except Exception:  # noqa: BLE001 - whatever it is, it gets no record
        return None
    axes = image_axes(tensor)
    return json.dumps({"layout": "NCHW"}) if axes is not None and axes[2] != 3 else None


def answers(
    gateway: GatewayProcess, name: str, content: bytes, given: dict[str, Any], record: str | None
) -> str:
    """Compare the server's answer to one image with onnxruntime's."""
    shape = given["shape"]
    sides = (shape[-2:] if record else shape[-3:-1]) if len(shape) >= 3 else (8, 8)
    height, width = (side or 32 for side in sides)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    body = {"image": base64.b64encode(file.getvalue()).decode()}
    answer = gateway.client.post(f"/api/v1/run/{name}", params={"top_k": 1000}, json=body)
    got = answer.json()
    if answer.status_code != 200:
        return "HTTP 500" if answer.status_code == 500 else f"registered; run: {got['code']}"
    tensor = pixels.transpose(2, 0, 1) if record else pixels
    tensor = tensor[np.newaxis] if len(shape) == 4 else tensor
    session = onnxruntime.InferenceSession(content)
    # The upload's own datatype: the published version may take bytes.
    dtype = _NUMPY.get(session.get_inputs()[0].type, np.uint8)
    feed = {given["name"]: tensor.astype(dtype)}
    expected = np.asarray(session.run(None, feed)[0]).reshape(-1).astype(np.float64)
    scores = {int(score["category"]): score["score"] for score in got["scores"]}
    same = all(
        np.isclose(value, expected[index], rtol=_RTOL, atol=_ATOL)
        for index, value in scores.items()
    )
    return "registered and right" if same else "WRONG ANSWER"
