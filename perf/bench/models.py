"""
The models of the comparison. Both take an image as it is, float32 [N, H, W, 3] of 0 to 255.

`tiny` costs next to nothing, so that what is measured is the server. `lite0` has the layers of
EfficientNet-Lite0 (https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite)
with the resize and the normalisation in the graph. Its weights are random, with a fixed seed: they
change what it answers, not what it costs.
"""

import math
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

# repeats, kernel, stride, expansion, channels out: as published.
_BLOCKS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD, _CLASSES, _SIDE = 32, 1280, 1000, 224


class _Graph:
    """Nodes and weights of a graph being written; each call appends and names its output."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self._rng = np.random.default_rng(seed)

    def constant(self, value: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def number(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))

    def normal(self, shape: tuple[int, ...], deviation: float) -> str:
        return self.constant(self._rng.normal(0.0, deviation, shape).astype(np.float32))

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def conv(
        self,
        x: str,
        fan_in: int,
        out: int,
        kernel: int,
        stride: int = 1,
        *,
        depthwise: bool = False,
    ) -> str:
        """Convolve, with what batch normalisation leaves behind: a bias. Variance is kept."""
        inner = 1 if depthwise else fan_in
        weight = self.normal((out, inner, kernel, kernel), math.sqrt(2 / (inner * kernel**2)))
        bias = self.normal((out,), 0.1)
        return self.node(
            "Conv",
            x,
            weight,
            bias,
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=[kernel // 2] * 4,
            group=out if depthwise else 1,
        )

    def relu6(self, x: str) -> str:
        low, high = self.number(0), self.number(6)
        return self.node("Clip", x, low, high)

    def block(self, x: str, fan_in: int, out: int, kernel: int, stride: int, expansion: int) -> str:
        """Write an inverted residual block."""
        wide, y = fan_in * expansion, x
        if expansion > 1:
            y = self.relu6(self.conv(y, fan_in, wide, 1))
        y = self.relu6(self.conv(y, wide, wide, kernel, stride, depthwise=True))
        y = self.conv(y, wide, out, 1)
        return self.node("Add", x, y) if stride == 1 and fan_in == out else y

    def model(self, output: str, classes: int) -> bytes:
        self.nodes.append(helper.make_node("Softmax", [output], ["scores"], axis=1))
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", "H", "W", 3])
        scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", classes])
        graph = helper.make_graph(self.nodes, "graph", [image], [scores], self.weights)
        opset = [helper.make_opsetid("", 18)]
        content: bytes = helper.make_model(
            graph, opset_imports=opset, ir_version=8
        ).SerializeToString()
        return content


def tiny() -> bytes:
    """Write ReduceMean, MatMul, Softmax: ten classes of the mean colour."""
    graph = _Graph(1)
    axes = graph.constant(np.array([1, 2], np.int64))
    mean = graph.node("ReduceMean", "image", axes, keepdims=0)
    return graph.model(graph.node("MatMul", mean, graph.normal((3, 10), 0.05)), 10)


def lite0() -> bytes:
    """Write EfficientNet-Lite0's layers behind a resize to 224 x 224 and (value - 127) / 128."""
    graph = _Graph(2)
    x = graph.node("Transpose", "image", perm=[0, 3, 1, 2])
    sides = graph.constant(np.array([_SIDE, _SIDE], np.int64))
    x = graph.node("Resize", x, "", "", sides, axes=[2, 3], mode="linear")
    x = graph.node("Sub", x, graph.number(127))
    x = graph.node("Div", x, graph.number(128))
    x = graph.relu6(graph.conv(x, 3, _STEM, 3, 2))
    channels = _STEM
    for repeats, kernel, stride, expansion, out in _BLOCKS:
        for index in range(repeats):
            x = graph.block(x, channels, out, kernel, stride if index == 0 else 1, expansion)
            channels = out
    x = graph.relu6(graph.conv(x, channels, _HEAD, 1))
    x = graph.node("Flatten", graph.node("GlobalAveragePool", x), axis=1)
    # Small, so that the softmax is not saturated and the best class is clear.
    return graph.model(graph.node("MatMul", x, graph.normal((_HEAD, _CLASSES), 0.05)), _CLASSES)
