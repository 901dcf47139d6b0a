"""
Build the ONNX graph by hand: pixels as they were decoded in, scores out.

The graph carries its own preprocessing, so a server has nothing to know about
it: float32 [N, H, W, 3], RGB, 0–255, any N, H and W. Three stages:

1. Resize to 16×16 with the anti-aliased triangle filter of Pillow's BILINEAR.
   The Resize operator learned to anti-alias only in opset 18, too new for some
   servers; and the filter is separable, so two matrix products do it exactly.
   Their matrices are computed in the graph from the picture's height and width.
2. Greyscale, then zero mean and unit deviation: colours and contrast are gone.
3. A small CNN. Its last layer is a convolution over the whole map instead of a
   matrix product over the batch, so a row's scores do not depend on its batch.

Opset 17 and IR 8 load in every onnxruntime since 1.13.

Source: ONNX, Operators (opset 17); Pillow, Resample.c (the triangle filter).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8
SIDE = 16
"""Height and width that the network sees."""
LUMA = (0.299, 0.587, 0.114)
LEAST_DEVIATION = 1.0
"""Of 0–255: a blank picture becomes zeros, not a division by nothing."""

Layer = Mapping[str, npt.NDArray[np.float32]]
"""One 3×3 (or, for the last, whole-map) convolution: weight [out, in, h, w] and bias [out]."""


class GraphBuilder:
    """Collects nodes and constants of a graph in the making."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, name: str, value: npt.ArrayLike, dtype: npt.DTypeLike) -> str:
        """Add a constant; returns its name."""
        self.initializers.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: object) -> str:
        """Add a node named as its one output; returns that name."""
        self.nodes.append(
            helper.make_node(operator, list(inputs), [output], name=output, **attributes)
        )
        return output


def build_preprocessing() -> onnx.ModelProto:
    """Stages 1 and 2 alone, [N, H, W, 3] to [N, 1, 16, 16]: what the network is trained behind."""
    graph = GraphBuilder()
    output = _preprocess(graph)
    return _finish(graph, output, ["batch", 1, SIDE, SIDE], name="digits_preprocessing")


def build_classifier(layers: Sequence[Layer], *, description: str) -> onnx.ModelProto:
    """
    The whole model, [N, H, W, 3] to softmax scores [N, 10].

    Args:
        layers: The trained convolutions in order. All but the last are 3×3 with padding and
            followed by ReLU; all but the last two of them also by 2×2 max pooling.
        description: Stored in the file, for whoever finds it.
    """
    graph = GraphBuilder()
    values = _preprocess(graph)
    for number, layer in enumerate(layers, start=1):
        last = number == len(layers)
        weight = graph.constant(f"conv{number}.weight", layer["weight"], np.float32)
        bias = graph.constant(f"conv{number}.bias", layer["bias"], np.float32)
        side = layer["weight"].shape[-1]
        pad = 0 if last else side // 2
        values = graph.node(
            "Conv",
            [values, weight, bias],
            f"conv{number}",
            kernel_shape=[side, side],
            pads=[pad] * 4,
        )
        if not last:
            values = graph.node("Relu", [values], f"relu{number}")
        if number < len(layers) - 1:
            values = graph.node(
                "MaxPool", [values], f"pool{number}", kernel_shape=[2, 2], strides=[2, 2]
            )
    logits = graph.node("Flatten", [values], "logits", axis=1)
    scores = graph.node("Softmax", [logits], "scores", axis=-1)
    model = _finish(graph, scores, ["batch", 10], name="digits")
    model.doc_string = description
    return model


def _preprocess(graph: GraphBuilder) -> str:
    """Stages 1 and 2; returns the name of the [N, 1, 16, 16] tensor."""
    shape = graph.node("Shape", ["input"], "shape")
    graph.constant("half", 0.5, np.float32)
    graph.constant("one", 1.0, np.float32)
    graph.constant("zero_int", 0, np.int64)
    graph.constant("one_int", 1, np.int64)
    graph.constant("axes_1", [1], np.int64)
    graph.constant("centres", (np.arange(SIDE)[:, None] + 0.5) / SIDE, np.float32)
    row_weights = _resize_matrix(graph, shape, axis=1, name="rows")
    column_weights = _resize_matrix(graph, shape, axis=2, name="columns")

    # [N, H, 3W] so that one product shrinks the height; 0 keeps a dimension, -1 is what is left.
    lines = graph.node(
        "Reshape", ["input", graph.constant("as_lines", [0, 0, -1], np.int64)], "lines"
    )
    lines = graph.node("MatMul", [row_weights, lines], "lines_resized")
    pixels = graph.node(
        "Reshape", [lines, graph.constant("as_pixels", [0, SIDE, -1, 3], np.int64)], "pixels"
    )
    small = graph.node("MatMul", [column_weights, pixels], "resized")  # [N, 16, 16, 3]

    weighted = graph.node("Mul", [small, graph.constant("luma", LUMA, np.float32)], "weighted")
    channel_axis = graph.constant("axes_3", [3], np.int64)
    grey = graph.node("ReduceSum", [weighted, channel_axis], "grey", keepdims=0)

    mean = graph.node("ReduceMean", [grey], "mean", axes=[1, 2], keepdims=1)
    centred = graph.node("Sub", [grey, mean], "centred")
    squared = graph.node("Mul", [centred, centred], "squared")
    variance = graph.node("ReduceMean", [squared], "variance", axes=[1, 2], keepdims=1)
    deviation = graph.node("Sqrt", [variance], "deviation")
    least = graph.constant("least_deviation", LEAST_DEVIATION, np.float32)
    deviation = graph.node("Max", [deviation, least], "deviation_bounded")
    standard = graph.node("Div", [centred, deviation], "standard")
    return graph.node("Unsqueeze", [standard, "axes_1"], "features")


def _resize_matrix(graph: GraphBuilder, shape: str, *, axis: int, name: str) -> str:
    """
    Add the matrix [16, L] that resizes an axis of length L; returns its name.

    Row i holds the triangle filter around the centre of output pixel i. Its half width is one
    output pixel where the picture shrinks (so every input pixel counts) and one input pixel
    where it grows (plain linear interpolation). Each row adds up to 1.
    """
    index = graph.constant(f"{name}_axis", axis, np.int64)
    length = graph.node("Gather", [shape, index], f"{name}_length", axis=0)
    length_float = graph.node("Cast", [length], f"{name}_length_float", to=TensorProto.FLOAT)
    step = graph.node(
        "Div",
        [length_float, graph.constant(f"{name}_side", SIDE, np.float32)],
        f"{name}_step",
    )
    half_width = graph.node("Max", [step, "one"], f"{name}_half_width")
    places = graph.node("Range", ["zero_int", length, "one_int"], f"{name}_index")
    places = graph.node("Cast", [places], f"{name}_index_float", to=TensorProto.FLOAT)
    places = graph.node("Add", [places, "half"], f"{name}_place")
    centres = graph.node("Mul", ["centres", length_float], f"{name}_centre")
    distance = graph.node("Sub", [places, centres], f"{name}_offset")
    distance = graph.node("Abs", [distance], f"{name}_distance")
    distance = graph.node("Div", [distance, half_width], f"{name}_relative")
    weight = graph.node("Sub", ["one", distance], f"{name}_triangle")
    weight = graph.node("Relu", [weight], f"{name}_weight")
    total = graph.node("ReduceSum", [weight, "axes_1"], f"{name}_total", keepdims=1)
    return graph.node("Div", [weight, total], f"{name}_matrix")


def _finish(
    graph: GraphBuilder, output: str, output_shape: list[str | int], *, name: str
) -> onnx.ModelProto:
    inputs = [
        helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", "height", "width", 3])
    ]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, output_shape)]
    model = helper.make_model(
        helper.make_graph(graph.nodes, name, inputs, outputs, graph.initializers),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="tools/demo/digits",
    )
    onnx.checker.check_model(model, full_check=True)
    return model
