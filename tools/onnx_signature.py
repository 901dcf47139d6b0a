"""
What an ONNX model takes and answers, read from its graph without running it.

Initializers that a graph lists as inputs are defaults, not inputs. Nothing outside the one file is
ever opened: a model that keeps data elsewhere is refused, wherever in the graph the reference
hides.

Source: ONNX, Intermediate Representation (graphs, external data); Triton, Model Configuration
(datatypes).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import onnx
from google.protobuf.message import DecodeError, Message
from onnx import TensorProto

from tools.errors import ExternalDataForbidden, ModelInvalid, SignatureUnsupported

Shape = tuple[int | None, ...]
"""Sizes by axis; None is a size that the model leaves open."""

_TRITON_DTYPE: Mapping[int, str] = {
    TensorProto.BOOL: "BOOL",
    TensorProto.UINT8: "UINT8",
    TensorProto.UINT16: "UINT16",
    TensorProto.UINT32: "UINT32",
    TensorProto.UINT64: "UINT64",
    TensorProto.INT8: "INT8",
    TensorProto.INT16: "INT16",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.FLOAT16: "FP16",
    TensorProto.FLOAT: "FP32",
    TensorProto.DOUBLE: "FP64",
    TensorProto.STRING: "BYTES",
    TensorProto.BFLOAT16: "BF16",
}


@dataclass(frozen=True, slots=True)
class TensorSignature:
    """One input or output. `dtype` is Triton's spelling, for example FP32."""

    name: str
    dtype: str
    shape: Shape

    def __str__(self) -> str:
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name!r} {self.dtype} [{sizes}]"


@dataclass(frozen=True, slots=True)
class ModelSignature:
    """A model's inputs and outputs, and the versions of ONNX that it is written in."""

    inputs: tuple[TensorSignature, ...]
    outputs: tuple[TensorSignature, ...]
    ir_version: int
    opsets: Mapping[str, int] = field(default_factory=dict)

    @property
    def batchable(self) -> bool:
        """Whether the first axis of every tensor is open, so that requests may share a run."""
        tensors = (*self.inputs, *self.outputs)
        return bool(tensors) and all(t.shape and t.shape[0] is None for t in tensors)

    @property
    def classes(self) -> int | None:
        """How many scores the first output gives for an image; None where it is left open."""
        if not self.outputs:
            return None
        shape = self.outputs[0].shape
        if len(shape) == 1:
            return shape[0]
        return shape[1] if len(shape) in {2, 4} else None

    def same_tensors(self, other: Self) -> bool:
        """Whether the other model has the very same inputs and outputs: one config serves both."""
        return self.inputs == other.inputs and self.outputs == other.outputs

    def to_json(self) -> dict[str, Any]:
        """Describe it in values that JSON knows."""
        return {
            "inputs": [_tensor_to_json(tensor) for tensor in self.inputs],
            "outputs": [_tensor_to_json(tensor) for tensor in self.outputs],
            "ir_version": self.ir_version,
            "opsets": dict(self.opsets),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read back what `to_json` wrote."""
        return cls(
            inputs=tuple(_tensor_from_json(tensor) for tensor in value["inputs"]),
            outputs=tuple(_tensor_from_json(tensor) for tensor in value["outputs"]),
            ir_version=value["ir_version"],
            opsets=dict(value["opsets"]),
        )

    def __str__(self) -> str:
        inputs = "; ".join(str(tensor) for tensor in self.inputs) or "none"
        outputs = "; ".join(str(tensor) for tensor in self.outputs) or "none"
        return f"inputs: {inputs}; outputs: {outputs}"


def read_signature(path: Path) -> ModelSignature:
    """
    Read the signature of a model file.

    Raises:
        ModelInvalid: It is no ONNX model, or a damaged one.
        ExternalDataForbidden: It keeps data in other files. None of them was opened.
        SignatureUnsupported: A tensor of it is no tensor (a sequence, a map) or of an unknown type.
    """
    return signature_of(load_model(path))


def load_model(path: Path) -> onnx.ModelProto:
    """
    Parse a model file, data inside it only.

    Raises:
        ModelInvalid: It is no ONNX model, or a damaged one.
        ExternalDataForbidden: It keeps data in other files. None of them was opened.
    """
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise ModelInvalid("The file is not an ONNX model, or it is cut short.") from error
    if not model.HasField("graph") or not model.ir_version:
        raise ModelInvalid("The file holds no ONNX graph.")
    if (name := next(_external_tensors(model), None)) is not None:
        raise ExternalDataForbidden(
            f"Tensor {name!r} keeps its data in another file. Save the model in one file "
            "(onnx.save_model with save_as_external_data=False)."
        )
    return model


def signature_of(model: onnx.ModelProto) -> ModelSignature:
    """
    Read the signature of a parsed model.

    Raises:
        SignatureUnsupported: A tensor of it is no tensor or of an unknown type.
    """
    graph = model.graph
    defaults = {tensor.name for tensor in graph.initializer}
    defaults |= {tensor.values.name for tensor in graph.sparse_initializer}
    return ModelSignature(
        inputs=tuple(_tensor(value) for value in graph.input if value.name not in defaults),
        outputs=tuple(_tensor(value) for value in graph.output),
        ir_version=model.ir_version,
        opsets={opset.domain: opset.version for opset in model.opset_import},
    )


def check_classifier(signature: ModelSignature) -> None:
    """
    Check that a model is an image classifier: one image in, one vector of scores out first.

    Raises:
        SignatureUnsupported: It is not; the text prints the signature.
    """
    if len(signature.inputs) != 1:
        raise SignatureUnsupported(
            f"A classifier has one input, this model has {len(signature.inputs)}. {signature}"
        )
    image = signature.inputs[0]
    if len(image.shape) != 4 or image.dtype in {"BYTES", "BOOL", "BF16"}:
        raise SignatureUnsupported(
            f"The input must be numbers of four axes (batch, height, width, channels). {signature}"
        )
    if not signature.outputs:
        raise SignatureUnsupported(f"The model has no output. {signature}")
    scores = signature.outputs[0]
    shaped = len(scores.shape) in {1, 2} or (len(scores.shape) == 4 and scores.shape[2:] == (1, 1))
    if not shaped or scores.dtype in {"BYTES", "BOOL", "BF16"}:
        raise SignatureUnsupported(
            f"The first output must be scores: [N, C], [C] or [N, C, 1, 1]. {signature}"
        )


def _tensor(value: onnx.ValueInfoProto) -> TensorSignature:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        shown = (kind or "nothing").removesuffix("_type")
        raise SignatureUnsupported(f"{value.name!r} is a {shown}, not a tensor.")
    tensor = value.type.tensor_type
    dtype = _TRITON_DTYPE.get(tensor.elem_type)
    if dtype is None:
        raise SignatureUnsupported(
            f"{value.name!r} is of the element type {tensor.elem_type}, which Triton does not know."
        )
    if not tensor.HasField("shape"):
        raise SignatureUnsupported(f"{value.name!r} does not say how many axes it has.")
    sizes = (d.dim_value if d.WhichOneof("value") == "dim_value" else -1 for d in tensor.shape.dim)
    return TensorSignature(value.name, dtype, tuple(s if s > 0 else None for s in sizes))


def _external_tensors(message: Message) -> Iterator[str]:
    """
    Find tensors that point outside the file, anywhere: initializers, attributes, subgraphs,
    functions, sparse tensors, training graphs. One walk over every field that can hold a message.
    """
    pending = [message]
    while pending:
        current = pending.pop()
        if isinstance(current, TensorProto):
            if current.data_location == TensorProto.EXTERNAL or current.external_data:
                yield current.name
            continue
        for descriptor, value in current.ListFields():
            if descriptor.message_type is None:
                continue
            pending.extend([value] if isinstance(value, Message) else value)


def _tensor_to_json(tensor: TensorSignature) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)}


def _tensor_from_json(value: Mapping[str, Any]) -> TensorSignature:
    return TensorSignature(value["name"], value["dtype"], tuple(value["shape"]))
