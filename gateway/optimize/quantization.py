"""
Make candidates of a model: calibrate once, quantize as often as needed.

The graph is optimised offline first, so that what onnxruntime would fuse at load is fused before it
is quantized. The result is QDQ with weights by channel, plain ONNX: any runtime takes it.

Source: onnxruntime, Quantize ONNX models.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData, create_calibrator
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.transformers.float16 import convert_float_to_float16

from gateway.optimize.recipes import Kind, Recipe

OPERATORS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
"""What takes most of a CNN's time, and gains from eight bits."""

_AROUND = ("Add", "Mul", "Clip", "Relu", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat")
# What stands between two of them: in eight bits too, no value goes back to float on the way.
_WEIGHTS = QuantType.QInt8

Tensor = npt.NDArray[np.generic]


class _Images(CalibrationDataReader):  # type: ignore[misc]  # untyped library
    def __init__(self, name: str, tensors: Sequence[Tensor]) -> None:
        self._name = name
        self._left: Iterator[Tensor] = iter(tensors)

    def get_next(self) -> dict[str, Tensor] | None:
        tensor = next(self._left, None)
        return None if tensor is None else {self._name: tensor}


class Workshop:
    """
    One model, and what its candidates are made of.

    Attributes:
        nodes: Names of the nodes that can be quantized, in the order of the graph.
    """

    def __init__(self, model: Path, folder: Path) -> None:
        """
        Optimise a model's graph offline.

        Args:
            model: An ONNX file; it is only read.
            folder: Where files may be made.
        """
        self._folder = folder
        self._model = folder / "optimised.onnx"
        options = onnxruntime.SessionOptions()
        # Beyond that the graph would hold operators that only this runtime knows.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(self._model)
        options.log_severity_level = 3
        onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        optimised = onnx.shape_inference.infer_shapes(onnx.load(self._model))
        _drop_unused_operator_sets(optimised)
        name_nodes(optimised.graph.node)
        onnx.save(optimised, self._model)
        graph = optimised.graph
        self.nodes = tuple(node.name for node in graph.node if node.op_type in OPERATORS)
        self._before = _before_the_first(graph)
        self._ranges: TensorsData | None = None

    def calibrate(self, name: str, tensors: Sequence[Tensor]) -> None:
        """
        Note the range of every value in the graph.

        Args:
            name: Of the graph's input.
            tensors: What it is given, one after the other, batch axis included.
        """
        calibrator = create_calibrator(
            str(self._model),
            [*OPERATORS, *_AROUND],
            augmented_model_path=str(self._folder / "calibrating.onnx"),
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"symmetric": False},
        )
        calibrator.collect_data(_Images(name, tensors))
        self._ranges = calibrator.compute_data()

    def make(self, recipe: Recipe, path: Path) -> None:
        """
        Write a candidate.

        Raises:
            ValueError: The model was not calibrated.
        """
        if self._ranges is None:
            raise ValueError("calibrate first")
        model = onnx.load(self._model)
        if recipe.kind is Kind.FP16:
            made = convert_float_to_float16(model, keep_io_types=True)
        else:
            made = self._quantize(model, recipe, self._ranges)
        # Both append nodes at the end, and ONNX wants them where they are used first.
        ordered = ONNXModel(made)
        ordered.topological_sort()
        onnx.save(ordered.model, path)

    def _quantize(
        self, model: onnx.ModelProto, recipe: Recipe, ranges: TensorsData
    ) -> onnx.ModelProto:
        signed = recipe.kind is Kind.S8S8
        quantizer = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=recipe.reduce_range,
            weight_qType=_WEIGHTS,
            activation_qType=QuantType.QInt8 if signed else QuantType.QUInt8,
            tensors_range=ranges,
            nodes_to_quantize=[],
            nodes_to_exclude=sorted(recipe.left_in_float | self._before),
            op_types_to_quantize=[*OPERATORS, *_AROUND],
            extra_options={"ActivationSymmetric": signed, "WeightSymmetric": True},
        )
        quantizer.quantize_model()
        made: onnx.ModelProto = quantizer.model.model
        return made


def name_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    """Name each node that has no name, or that of another: names say what stays in float."""
    known: set[str] = set()
    for index, node in enumerate(nodes):
        if not node.name or node.name in known:
            node.name = f"{node.op_type}_{index}"
        known.add(node.name)


def _before_the_first(graph: onnx.GraphProto) -> frozenset[str]:
    """
    Name the nodes that stand before the first convolution: what resizes and normalises the image.
    Eight bits there would be lost for all that follows, and save no time.
    """
    before = []
    for node in graph.node:
        if node.op_type in OPERATORS:
            break
        before.append(node.name)
    return frozenset(before)


def _drop_unused_operator_sets(model: onnx.ModelProto) -> None:
    """Drop the operator sets that the runtime lists when it writes a graph and no node uses."""
    used = _domains(model.graph)
    kept = [each for each in model.opset_import if (each.domain or "ai.onnx") in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _domains(graph: onnx.GraphProto) -> set[str]:
    found = {"ai.onnx"}
    for node in graph.node:
        found.add(node.domain or "ai.onnx")
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                found |= _domains(inner)
    return found
