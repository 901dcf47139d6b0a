"""
Versions for rollouts whose truth is known: which of three colours is an image?

Every version is the same tiny graph with other weights or with something that makes it slow or
broken, so that what differs between two versions is known.
"""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from testbed.rollout_load import Load, Picture

COLOURS = ((200, 20, 30), (30, 190, 25), (20, 35, 210))


def colour_model(
    path: Path, *, flipped: bool = False, seed: int = 0, fails: bool = False, hangs: bool = False
) -> Path:
    """
    Write a classifier of red, green and blue over float32 [N, H, W, 3].

    Args:
        path: Where to.
        flipped: It names the wrong class, always.
        seed: Another seed is another file with the same answers.
        fails: It fails on the blue image: an index out of range.
        hangs: It counts to some millions on the blue image, far beyond any deadline.
    """
    matrix = np.eye(3, dtype=np.float32) * (0.05 + seed * 1e-4)
    if flipped:
        matrix = np.roll(matrix, 1, axis=1)
    initializers = [
        numpy_helper.from_array(matrix[np.newaxis], "matrices"),
        numpy_helper.from_array(np.array(2, np.int64), "blue_channel"),
        numpy_helper.from_array(np.array(0, np.int64), "zero"),
        numpy_helper.from_array(np.array(205, np.float32), "blue_level"),
    ]
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Gather", ["mean", "blue_channel"], ["blues"], axis=1),
        helper.make_node("ReduceMax", ["blues"], ["blue"], keepdims=0),
        helper.make_node("Div", ["blue", "blue_level"], ["share"]),
        helper.make_node("Floor", ["share"], ["level"]),
        helper.make_node("Cast", ["level"], ["is_blue"], to=TensorProto.INT64),
        helper.make_node("Gather", ["matrices", "is_blue" if fails else "zero"], ["matrix"]),
        helper.make_node("MatMul", ["mean", "matrix"], ["logits"]),
        *(_counting(initializers) if hangs else []),
        helper.make_node("Softmax", ["slow" if hangs else "logits"], ["scores"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", "h", "w", 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3])],
        initializers,
    )
    model: onnx.ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    )
    path.write_bytes(model.SerializeToString())
    return path


def _counting(initializers: list[onnx.TensorProto]) -> list[onnx.NodeProto]:
    """Make nodes that add nothing to the logits, some million times if the image is blue."""
    initializers += [
        numpy_helper.from_array(np.array(2_000_000, np.int64), "many"),
        numpy_helper.from_array(np.array(True), "go_on"),
        numpy_helper.from_array(np.array(0, np.float32), "nothing"),
    ]
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["on"], ["still_on"]),
            helper.make_node("Add", ["before", "nothing"], ["after"]),
        ],
        "count",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("still_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, None),
        ],
    )
    return [
        helper.make_node("Mul", ["is_blue", "many"], ["turns"]),
        helper.make_node("Loop", ["turns", "go_on", "logits"], ["slow"], body=body),
    ]


def image_of(category: int, *, side: int = 20) -> dict[str, str]:
    """Make the body of a `run` whose true class is `category`."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), COLOURS[category]).save(buffer, "PNG")
    return {"image": base64.b64encode(buffer.getvalue()).decode()}


PICTURES = tuple(
    Picture(json.dumps(image_of(category)).encode(), category) for category in range(len(COLOURS))
)


def load(
    url: str, model: str, *, clients: int = 4, keys: bool = False, feedback: float = 0.0
) -> Load:
    """Ask for the colours from several clients for the length of a block."""
    return Load(url, model, PICTURES, clients=clients, keys=keys, feedback=feedback)


EASY: dict[str, Any] = {
    # Small machines are noisy and tests are short: the tolerances are wide, the rules the same.
    "error_rate": {"tolerated": 0.2},
    "latency": {"tolerated": 0.95, "required": False},
    "agreement": {"tolerated": 0.3},
}
