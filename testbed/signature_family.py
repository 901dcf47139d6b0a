"""
Classifiers of red, green and blue whose inputs or outputs differ, so that each change of a
signature can be tried: one class more, another size, another layout, other numbers.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

UNIT = "unit"
_RESIZED = {"size": [64, 64], "resize": "stretch"}


def colours(
    *,
    side: int = 64,
    classes: int = 3,
    channels_first: bool = False,
    quantized: bool = False,
    scaled: bool = False,
    flipped: bool = False,
    seed: int = 0,
) -> bytes:
    """
    Make a classifier of one size: float32, channels last, three classes, unless something else is
    asked for. `quantized` takes whole numbers and works in int8, `scaled` takes 0 to 255 where
    others take 0 to 1, `flipped` names the wrong class.
    """
    matrix = np.eye(3, classes, dtype=np.float32) * (20.0 + seed)
    if scaled:
        matrix /= 255
    if flipped:
        matrix = np.roll(matrix, 1, axis=0)
    initializers = [numpy_helper.from_array(matrix, "matrix")]
    nodes, pixels = [], "image"
    if quantized:
        initializers += [
            numpy_helper.from_array(np.array(1 / 255, np.float32), "step"),
            numpy_helper.from_array(np.array(0.2, np.float32), "weight_step"),
            numpy_helper.from_array(np.array(0, np.uint8), "zero"),
            numpy_helper.from_array(np.array(0, np.int8), "weight_zero"),
            numpy_helper.from_array((matrix / 0.2).round().clip(-128, 127).astype(np.int8), "w8"),
        ]
        nodes += [
            helper.make_node("DequantizeLinear", ["image", "step", "zero"], ["pixels"]),
            helper.make_node("DequantizeLinear", ["w8", "weight_step", "weight_zero"], ["weights"]),
        ]
        pixels = "pixels"
    axes = [2, 3] if channels_first else [1, 2]
    nodes += [
        helper.make_node("ReduceMean", [pixels], ["mean"], axes=axes, keepdims=0),
        helper.make_node("MatMul", ["mean", "weights" if quantized else "matrix"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
    ]
    shape: list[str | int | None] = ["n", 3, side, side] if channels_first else ["n", side, side, 3]
    dtype = TensorProto.UINT8 if quantized else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("image", dtype, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", classes])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


# The challenger's graph, and the record that it is registered with; the champion's side is 224 for
# the change of the size, else 64, and its record UNIT.
CHANGES: Mapping[str, tuple[dict[str, Any], str]] = {
    "one-class-more": ({"classes": 4}, UNIT),
    "256-instead-of-224": ({"side": 256}, UNIT),
    "channels-first": ({"channels_first": True}, UNIT),
    "int8-instead-of-float": ({"quantized": True}, json.dumps(_RESIZED)),
}


def side_of(change: str) -> int:
    """Tell the champion's side, in pixels."""
    return 224 if change.startswith("256") else 64
