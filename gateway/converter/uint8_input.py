"""
Let a model take pixels as bytes: a Cast from UINT8 in front of its graph.

An image is 0-255 in every channel, and FP16, FP32 and FP64 hold each of these numbers exactly. So a
model that is fed them as they are gets the very same numbers from a Cast, in a quarter of the bytes
(of FP32) on the way to it. The new input has the old one's name and shape; the old tensor lives on
inside, under a fresh name.

    image: FP32 → …        becomes        image: UINT8 → Cast → image_as_fp32 → …

A model whose input is scaled or normalised beforehand is not one of these.

Source: ONNX, Operators (Cast: from UINT8 since opset 6) and IR specification (names of outer graphs
are seen in the graphs inside of nodes).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto

import onnx
from onnx import TensorProto, helper

from gateway.converter.onnx_signature import real_inputs
from gateway.converter.signature import TensorSignature, takes_raw_pixels

_FLOATS: Mapping[int, str] = {
    TensorProto.FLOAT16: "FP16",
    TensorProto.FLOAT: "FP32",
    TensorProto.DOUBLE: "FP64",
}
_FIRST_OPSET = 6  # before it Cast named its datatype by a string
_DEFAULT_DOMAINS = frozenset({"", "ai.onnx"})


class GraphDecision(Enum):
    """CHANGE the graph; KEEP it because that is wished; or there is NOTHING to decide."""

    CHANGE = auto()
    KEEP = auto()
    NOTHING = auto()


@dataclass(frozen=True, slots=True)
class InputPolicy:
    """
    When a graph gets a uint8 input.

    Attributes:
        pixels: Whether images come as values 0-255. None: as the input's shape tells, [N, H, W, 3].
        keep_graph: True: never. False: wherever it is exact. None: unless `beside` stands against
            it.
        beside: The input of the version that this one must be able to replace: Triton serves
            versions side by side only if they take the same. A graph that does is kept.
    """

    pixels: bool | None = None
    keep_graph: bool | None = None
    beside: TensorSignature | None = None

    def decide(self, model: onnx.ModelProto, image: TensorSignature) -> GraphDecision:
        """Decide for a graph, given what its first input is."""
        pixels = takes_raw_pixels(image) if self.pixels is None else self.pixels
        if not pixels or not _can_change(model):
            return GraphDecision.NOTHING
        keep = image == self.beside if self.keep_graph is None else self.keep_graph
        return GraphDecision.KEEP if keep else GraphDecision.CHANGE


AS_IT_IS = InputPolicy(pixels=False)


def feed_bytes(model: onnx.ModelProto) -> str:
    """
    Put the Cast in front of a graph, in place.

    Args:
        model: A graph for which `InputPolicy.decide` said CHANGE; its weights may be missing.

    Returns:
        What was changed, in a sentence.
    """
    graph, image = model.graph, real_inputs(model.graph)[0]
    tensor = image.type.tensor_type
    dtype = _FLOATS[tensor.elem_type]
    inner = _fresh_name(graph, f"{image.name}_as_{dtype.lower()}")
    _rename(graph, image.name, inner)
    cast = helper.make_node("Cast", [image.name], [inner], name=inner, to=tensor.elem_type)
    graph.node.insert(0, cast)
    tensor.elem_type = TensorProto.UINT8
    return (
        f"The input {image.name!r} takes UINT8 instead of {dtype}: a Cast stands in front of the "
        "graph, exact for pixels 0-255."
    )


def _can_change(model: onnx.ModelProto) -> bool:
    """Whether there is one input of floats, nothing else hangs on its name, and Cast is known."""
    inputs = real_inputs(model.graph)
    opset = max((i.version for i in model.opset_import if i.domain in _DEFAULT_DOMAINS), default=0)
    return (
        len(inputs) == 1
        and inputs[0].type.tensor_type.elem_type in _FLOATS
        and opset >= _FIRST_OPSET
        and inputs[0].name not in {output.name for output in model.graph.output}
        and not model.training_info
    )


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Rename every use of an outer tensor in a graph and in the graphs inside of its nodes."""
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new
        for inside in _graphs(node):
            if old not in _defined(inside):
                _rename(inside, old, new)
                for output in inside.output:
                    output.name = new if output.name == old else output.name
    for value in graph.value_info:
        value.name = new if value.name == old else value.name
    for annotation in graph.quantization_annotation:
        if annotation.tensor_name == old:
            annotation.tensor_name = new


def _fresh_name(graph: onnx.GraphProto, wanted: str) -> str:
    taken, name, number = set(_names(graph)), wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    return name


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    """Give every name of a tensor or node, in the graphs inside of nodes too."""
    yield from _defined(graph)
    yield from (value.name for value in (*graph.output, *graph.value_info))
    for node in graph.node:
        yield node.name
        yield from node.input
        for inside in _graphs(node):
            yield from _names(inside)


def _defined(graph: onnx.GraphProto) -> set[str]:
    """Give the names that a graph defines itself."""
    defined = {value.name for value in graph.input}
    defined |= {tensor.name for tensor in graph.initializer}
    defined |= {tensor.values.name for tensor in graph.sparse_initializer}
    return defined | {name for node in graph.node for name in node.output}


def _graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs
