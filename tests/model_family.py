"""
Small ONNX models of every kind that the product must take, and one of the original's kind.

`FAMILY` is the list: layouts, fixed and dynamic sizes, datatypes, ranks of the output, numbers of
classes, opsets and IR versions from old to the newest that onnx knows, and the oddities of real
exporters. A case knows the signature that must be read from it and brings an input to try it with.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from gateway.converter.signature import Shape, TensorSignature

NEWEST_OPSET: int = onnx.defs.onnx_opset_version()
NEWEST_IR: int = onnx.IR_VERSION
_ONNX = {"FP32": TensorProto.FLOAT, "FP16": TensorProto.FLOAT16, "UINT8": TensorProto.UINT8}
_NUMPY = {"FP32": np.float32, "FP16": np.float16, "UINT8": np.uint8}
_SIDE = 6


@dataclass(frozen=True)
class ModelCase:
    """
    One model.

    Attributes:
        id: Its name in test reports; also a valid model name.
        make: Makes the graph.
        inputs, outputs: The signature that must be read from it.
        batchable: Whether requests may share a batch.
        sample_shapes: Shape of each input to try it with, the batch axis included.
        classifier: Whether it passes for an image classifier.
    """

    id: str
    make: Callable[[], onnx.ModelProto]
    inputs: tuple[TensorSignature, ...]
    outputs: tuple[TensorSignature, ...]
    batchable: bool
    sample_shapes: Mapping[str, tuple[int, ...]]
    classifier: bool = True

    def build(self, path: Path) -> Path:
        """Write the model to `path`."""
        path.write_bytes(self.make().SerializeToString())
        return path

    def sample(self, seed: int = 0) -> dict[str, NDArray[Any]]:
        """Make an input: values 0 to 255."""
        rng = np.random.default_rng(seed)
        return {
            tensor.name: np.asarray(rng.integers(0, 256, self.sample_shapes[tensor.name])).astype(
                _NUMPY[tensor.dtype]
            )
            for tensor in self.inputs
        }


def original_model(path: Path, classes: int, *, seed: int = 0) -> None:
    """Write ReduceMean → MatMul → Softmax over float32 [N, H, W, 3], all sizes open."""
    image: Shape = (None, None, None, 3)
    path.write_bytes(_classifier(shape=image, classes=classes, seed=seed).SerializeToString())


def classifier_case(
    case_id: str,
    shape: Shape,
    *,
    classes: int = 5,
    dtype: str = "FP32",
    pooled: bool = False,
    out_batch: int | str | None = "as the input",
    input_name: str = "image",
    output_name: str = "scores",
    **graph: Any,
) -> ModelCase:
    """
    Describe a classifier: the mean colour, a matrix, a softmax.

    Args:
        case_id: The case's id.
        shape: Of the input, [N, H, W, 3] or [N, 3, H, W].
        classes: How many.
        dtype: Of the input.
        pooled: Answer [N, C, 1, 1] (channels first only), as some networks do.
        out_batch: The batch size that the output's declaration says.
        input_name, output_name: Any text.
        graph: opset, ir_version, listed, seed: see `_classifier`.
    """
    batch = shape[0] if isinstance(out_batch, str) else out_batch
    scores: Shape = (batch, classes, 1, 1) if pooled else (batch, classes)
    sample = tuple(_SIDE if size is None else size for size in shape)
    sample = (shape[0] or 1, *sample[1:])
    return ModelCase(
        id=case_id,
        make=partial(
            _classifier,
            shape=shape,
            classes=classes,
            dtype=dtype,
            scores=scores,
            input_name=input_name,
            output_name=output_name,
            **graph,
        ),
        inputs=(TensorSignature(input_name, dtype, shape),),
        outputs=(TensorSignature(output_name, "FP32", scores),),
        batchable=shape[0] is None and batch is None,
        sample_shapes={input_name: sample},
    )


def _classifier(
    *,
    shape: Shape,
    classes: int,
    scores: Shape | None = None,
    dtype: str = "FP32",
    input_name: str = "image",
    output_name: str = "scores",
    opset: int = 13,
    ir_version: int = 8,
    listed: bool = False,
    seed: int = 0,
) -> onnx.ModelProto:
    """Make the graph. `listed`: the weights are listed as inputs, as IR 3 demanded."""
    scores = scores or (shape[0], classes)
    pooled = len(scores) == 4
    channels_first = shape[1] == 3
    weights = np.random.default_rng(seed).normal(size=(3, classes)).astype(np.float32)
    weights /= 50
    initializers = [numpy_helper.from_array(_kernel(weights) if pooled else weights, "weights")]
    nodes, features = [], input_name
    reduce: dict[str, Any] = {}
    if dtype != "FP32":
        nodes.append(helper.make_node("Cast", [features], ["pixels"], to=TensorProto.FLOAT))
        features = "pixels"
    axes = [2, 3] if channels_first else [1, 2]
    if opset < 18:
        reduce["axes"] = axes
        reduced = [features]
    else:
        initializers.append(numpy_helper.from_array(np.array(axes, np.int64), "axes"))
        reduced = [features, "axes"]
    nodes += [
        helper.make_node("ReduceMean", reduced, ["mean"], keepdims=int(pooled), **reduce),
        helper.make_node("Conv" if pooled else "MatMul", ["mean", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], [output_name], axis=1),
    ]
    inputs = [_value(input_name, dtype, shape)]
    if listed:
        inputs += [
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            for tensor in initializers
        ]
    graph = helper.make_graph(
        nodes, "classifier", inputs, [_value(output_name, "FP32", scores)], initializers
    )
    return model_of(graph, opset=opset, ir_version=ir_version)


def model_of(graph: onnx.GraphProto, *, opset: int = 13, ir_version: int = 8) -> onnx.ModelProto:
    """Wrap a graph."""
    model: onnx.ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version
    )
    return model


def _value(name: str, dtype: str, shape: Shape) -> onnx.ValueInfoProto:
    symbols = [f"axis_{axis}" if size is None else size for axis, size in enumerate(shape)]
    if symbols and shape[0] is None:
        symbols[0] = "batch"
    value: onnx.ValueInfoProto = helper.make_tensor_value_info(name, _ONNX[dtype], symbols)
    return value


def _kernel(weights: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(weights.T[:, :, np.newaxis, np.newaxis])


def _opset_cases() -> list[ModelCase]:
    versions = [(9, 3), (10, 4), (11, 6), (12, 7), (13, 8), (17, 8), (18, 9), (21, 10)]
    return [
        classifier_case(
            f"opset{opset}-ir{ir_version}",
            (None, None, None, 3),
            opset=opset,
            ir_version=ir_version,
            listed=ir_version == 3,
        )
        for opset, ir_version in [*versions, (NEWEST_OPSET, NEWEST_IR)]
    ]


def _convolutional(case_id: str, shape: Shape) -> ModelCase:
    """Describe a real, if tiny, CNN: convolution, ReLU, global pooling, flatten, Gemm."""

    def make() -> onnx.ModelProto:
        rng = np.random.default_rng(7)
        kernel = rng.normal(size=(4, 3, 3, 3)).astype(np.float32) / 100
        matrix = rng.normal(size=(4, 6)).astype(np.float32) / 10
        nodes = [
            helper.make_node("Conv", ["input", "kernel"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("GlobalAveragePool", ["r"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("Gemm", ["f", "matrix"], ["logits"]),
        ]
        initializers = [
            numpy_helper.from_array(kernel, "kernel"),
            numpy_helper.from_array(matrix, "matrix"),
        ]
        inputs = [_value("input", "FP32", shape)]
        outputs = [_value("logits", "FP32", (shape[0], 6))]
        return model_of(helper.make_graph(nodes, "cnn", inputs, outputs, initializers))

    return ModelCase(
        id=case_id,
        make=make,
        inputs=(TensorSignature("input", "FP32", shape),),
        outputs=(TensorSignature("logits", "FP32", (shape[0], 6)),),
        batchable=shape[0] is None,
        sample_shapes={"input": (shape[0] or 1, 3, shape[2] or _SIDE, shape[3] or _SIDE)},
    )


def _flattening() -> ModelCase:
    """Declare free sides and work with one only, so that a guessed warm-up would fail the load."""

    def make() -> onnx.ModelProto:
        matrix = np.random.default_rng(3).normal(size=(3 * _SIDE * _SIDE, 4)).astype(np.float32)
        nodes = [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("MatMul", ["flat", "matrix"], ["scores"]),
        ]
        inputs = [_value("image", "FP32", (None, None, None, 3))]
        outputs = [_value("scores", "FP32", (None, 4))]
        initializers = [numpy_helper.from_array(matrix / 1000, "matrix")]
        return model_of(helper.make_graph(nodes, "flattening", inputs, outputs, initializers))

    return ModelCase(
        id="one-size-declared-free",
        make=make,
        inputs=(TensorSignature("image", "FP32", (None, None, None, 3)),),
        outputs=(TensorSignature("scores", "FP32", (None, 4)),),
        batchable=True,
        sample_shapes={"image": (1, _SIDE, _SIDE, 3)},
    )


def _declared_vaguely(
    case_id: str, declared: list[Any] | None, image: Shape, scores: Shape
) -> ModelCase:
    """Declare the output's shape otherwise than it follows from the graph."""

    def make() -> onnx.ModelProto:
        model = _classifier(shape=image, classes=5)
        model.graph.output[0].CopyFrom(
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, declared)
        )
        return model

    sample = (image[0] or 1, image[1] or _SIDE, image[2] or _SIDE, 3)
    return ModelCase(
        id=case_id,
        make=make,
        inputs=(TensorSignature("image", "FP32", image),),
        outputs=(TensorSignature("scores", "FP32", scores),),
        batchable=image[0] is None and scores[0] is None,
        sample_shapes={"image": sample},
    )


def _more_outputs() -> ModelCase:
    """Answer a batch of single numbers and a scalar besides the scores."""

    def make() -> onnx.ModelProto:
        model = _classifier(shape=(None, None, None, 3), classes=5)
        graph = model.graph
        graph.node.append(helper.make_node("ReduceMax", ["scores"], ["best"], axes=[1], keepdims=0))
        graph.output.append(_value("best", "FP32", (None,)))
        return model

    return ModelCase(
        id="batched-scalar-output",
        make=make,
        inputs=(TensorSignature("image", "FP32", (None, None, None, 3)),),
        outputs=(
            TensorSignature("scores", "FP32", (None, 5)),
            TensorSignature("best", "FP32", (None,)),
        ),
        batchable=True,
        sample_shapes={"image": (2, _SIDE, _SIDE, 3)},
    )


def _scalars() -> ModelCase:
    """Take a scalar beside the image, and answer one beside the scores: nothing can be batched."""

    def make() -> onnx.ModelProto:
        model = _classifier(shape=(None, None, None, 3), classes=5)
        graph = model.graph
        graph.node[-1].output[0] = "plain"
        graph.node.extend(
            [
                helper.make_node("Mul", ["plain", "gain"], ["scores"]),
                helper.make_node("ReduceMax", ["scores"], ["best"], keepdims=0),
            ]
        )
        graph.input.append(_value("gain", "FP32", ()))
        graph.output.append(_value("best", "FP32", ()))
        return model

    return ModelCase(
        id="scalars",
        make=make,
        inputs=(
            TensorSignature("image", "FP32", (None, None, None, 3)),
            TensorSignature("gain", "FP32", ()),
        ),
        outputs=(
            TensorSignature("scores", "FP32", (None, 5)),
            TensorSignature("best", "FP32", ()),
        ),
        batchable=False,
        # A request cannot say "no axes".
        sample_shapes={"image": (1, _SIDE, _SIDE, 3), "gain": (1,)},
        classifier=False,
    )


def _single_image() -> ModelCase:
    """Take one image without a batch axis and answer [C]."""

    def make() -> onnx.ModelProto:
        weights = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32) / 50
        nodes = [
            helper.make_node("ReduceMean", ["image"], ["mean"], axes=[0, 1], keepdims=0),
            helper.make_node("MatMul", ["mean", "weights"], ["scores"]),
        ]
        inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["H", "W", 3])]
        outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [5])]
        initializers = [numpy_helper.from_array(weights, "weights")]
        return model_of(helper.make_graph(nodes, "single", inputs, outputs, initializers))

    return ModelCase(
        id="one-image-without-batch",
        make=make,
        inputs=(TensorSignature("image", "FP32", (None, None, 3)),),
        outputs=(TensorSignature("scores", "FP32", (5,)),),
        batchable=False,
        sample_shapes={"image": (_SIDE, _SIDE, 3)},
    )


_FREE: Shape = (None, None, None, 3)
FAMILY: tuple[ModelCase, ...] = (
    classifier_case("nhwc-free", _FREE),
    classifier_case("nhwc-fixed-size", (None, 8, 8, 3)),
    classifier_case("nhwc-fixed-batch", (1, None, None, 3)),
    classifier_case("nhwc-fixed", (1, 8, 8, 3)),
    classifier_case("nchw-free", (None, 3, None, None)),
    classifier_case("nchw-fixed-size", (None, 3, 8, 8)),
    classifier_case("nchw-fixed", (1, 3, 8, 8)),
    classifier_case("pooled-free", (None, 3, None, None), pooled=True),
    classifier_case("pooled-fixed", (1, 3, 8, 8), pooled=True),
    classifier_case("one-class", _FREE, classes=1),
    classifier_case("thousand-classes", _FREE, classes=1000),
    classifier_case("uint8", _FREE, dtype="UINT8"),
    classifier_case("fp16", _FREE, dtype="FP16"),
    classifier_case("uint8-nchw-fixed", (1, 3, 8, 8), dtype="UINT8"),
    classifier_case("listed-initializers", _FREE, listed=True),
    classifier_case("listed-initializers-fixed", (1, 8, 8, 3), listed=True),
    classifier_case("name-quotes", _FREE, input_name="in\"put'", output_name='"'),
    classifier_case("name-newline", _FREE, input_name="in\nput", output_name="out\\n\tput\r"),
    classifier_case("name-unicode", _FREE, input_name="画像 🖼", output_name="Klasse\u2028ñ"),
    classifier_case("name-path", _FREE, input_name="../input:0", output_name="a/b;$(true)"),
    *_opset_cases(),
    _convolutional("cnn-free", (None, 3, None, None)),
    _convolutional("cnn-fixed", (1, 3, 12, 12)),
    _flattening(),
    _declared_vaguely("output-without-shape", None, _FREE, (None, 5)),
    _declared_vaguely("output-all-free", ["n", "c"], _FREE, (None, 5)),
    _declared_vaguely("output-free-batch-follows", ["n", 5], (1, 8, 8, 3), (1, 5)),
    _declared_vaguely("output-batch-of-one", [1, 5], _FREE, (1, 5)),
    _declared_vaguely("output-contradicts", ["n", 7], _FREE, (None, None)),
    _more_outputs(),
    _scalars(),
    _single_image(),
)
