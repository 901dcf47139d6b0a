"""
Read a model's signature out of its ONNX file, without running anything and without opening any
other file.

What Triton compares the configuration with is what onnxruntime says after it has loaded the graph,
and that is more than what the file declares: a size that the file leaves open may follow from the
operators, and where the two contradict each other onnxruntime takes the size for unknown. So the
declared shapes of the outputs are merged with the inferred ones, in the same way. Weights play no
part in that and are dropped first, which keeps large models cheap.

Source: ONNX, IR specification and `onnx.shape_inference`; onnxruntime `core/graph/graph.cc`
(MergeShapeInfo).
"""

from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from gateway.converter.errors import ModelInvalid, SignatureUnsupported
from gateway.converter.external_data import refuse_external_data
from gateway.converter.kinds import not_onnx
from gateway.converter.signature import ModelSignature, Shape, TensorSignature, check_classifier

__all__ = [
    "ModelSignature",
    "Shape",
    "TensorSignature",
    "accepts_inputs",
    "check_classifier",
    "ends_in_softmax",
    "last_operator",
    "read_graph",
    "read_signature",
    "real_inputs",
    "signature_of",
]

MAX_FILE_BYTES = 2**31 - 1
# Shapes are computed from small integer tensors (Reshape, Slice, Resize); larger ones are weights.
_MAX_KEPT_ELEMENTS = 1024
_VALUE_FIELDS = (
    "raw_data",
    "float_data",
    "int32_data",
    "string_data",
    "int64_data",
    "double_data",
    "uint64_data",
)
# What Triton's onnxruntime backend carries; bfloat16 only in releases of 2026.
_TRITON_DTYPES: Mapping[int, str] = {
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
}
# Operators whose output holds the values of their first input.
_SAME_VALUES = frozenset(
    {"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
)
# A shape as far as it is known: None if not even the rank is.
_KnownShape = Shape | None


def read_signature(path: Path) -> ModelSignature:
    """
    Read what the model in `path` takes and answers.

    Raises:
        ModelInvalid: Not an ONNX file, or a damaged one.
        ExternalDataForbidden: It keeps values in another file.
        SignatureUnsupported: A sequence, map, optional, or a datatype that Triton cannot carry.
        OSError: The file cannot be read.
    """
    return signature_of(read_graph(path))


def read_graph(path: Path) -> onnx.ModelProto:
    """
    Parse the file and drop the weights: the graph, and the constants that shapes depend on.

    Raises:
        ModelInvalid: Not an ONNX file, or a damaged one.
        ExternalDataForbidden: It keeps values in another file.
        OSError: The file cannot be read.
    """
    size_bytes = path.stat().st_size
    if size_bytes == 0:
        raise ModelInvalid("The file is empty.")
    if size_bytes > MAX_FILE_BYTES:
        raise ModelInvalid("The file is larger than 2 GiB, the limit of an ONNX file.")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise not_onnx(path, "Not an ONNX model, or a truncated one.") from error
    if not (model.ir_version > 0 and model.HasField("graph") and model.opset_import):
        raise not_onnx(path, "Not an ONNX model: no IR version, graph or operator set.")
    refuse_external_data(model)
    _drop_weights(model.graph)
    return model


def signature_of(model: onnx.ModelProto) -> ModelSignature:
    """
    Tell what the graph takes and answers. The graph is not changed.

    Raises:
        ModelInvalid: A name is not UTF-8.
        SignatureUnsupported: A sequence, map, optional, or a datatype that Triton cannot carry.
    """
    graph = model.graph
    names = [value.name for value in (*graph.input, *graph.output)]
    names += [opset.domain for opset in model.opset_import]
    if not all(map(_is_text, names)):
        raise ModelInvalid("A name in the model is not UTF-8.")
    inputs = {value.name: _declared(value) for value in real_inputs(model.graph)}
    outputs = {value.name: _declared(value) for value in model.graph.output}
    inferred = _inferred_outputs(model)
    outputs = {
        name: (dtype or inferred[name][0], _merge(shape, inferred[name][1]))
        for name, (dtype, shape) in outputs.items()
    }
    return ModelSignature(
        inputs=_tensors(inputs, model.graph),
        outputs=_tensors(outputs, model.graph),
        ir_version=model.ir_version,
        opsets={opset.domain or "ai.onnx": opset.version for opset in model.opset_import},
    )


def accepts_inputs(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> bool:
    """
    Whether inputs of these shapes pass through the graph, as far as its shapes tell.

    A graph may declare a free size and yet work with one only (a Flatten in front of a matrix).

    Args:
        model: The graph, as `read_graph` gives it; it is not changed.
        shapes: Concrete sizes by input, the batch axis included.
    """
    concrete = onnx.ModelProto()
    concrete.CopyFrom(model)
    for value in real_inputs(concrete.graph):
        dims = value.type.tensor_type.shape.dim
        for dim, size in zip(dims, shapes[value.name], strict=True):
            dim.dim_value = size
    # Inferred anew for these sizes: what the file says about the others would contradict.
    del concrete.graph.value_info[:]
    _forget_shapes(concrete.graph.output)
    return _infer(concrete, strict=True) is not None


def ends_in_softmax(model: onnx.ModelProto) -> bool:
    """Whether the first output is a softmax, perhaps in another shape or datatype."""
    return last_operator(model) == "Softmax"


def last_operator(model: onnx.ModelProto) -> str | None:
    """Name the operator that makes the first output, whatever shape and datatype it gets."""
    producers = {name: node for node in model.graph.node for name in node.output if name}
    name = model.graph.output[0].name if model.graph.output else ""
    while (node := producers.get(name)) is not None and node.op_type in _SAME_VALUES:
        name = node.input[0]
    return None if node is None else node.op_type


def real_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """
    List what a request must bring, in order: the inputs without the initializers among them, which
    had to be listed there until IR 3, and still may be.
    """
    given = {tensor.name for tensor in graph.initializer}
    given |= {tensor.values.name for tensor in graph.sparse_initializer}
    return [value for value in graph.input if value.name not in given]


def _drop_weights(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        if prod(tensor.dims) > _MAX_KEPT_ELEMENTS:
            for name in _VALUE_FIELDS:
                tensor.ClearField(name)


def _is_text(name: object) -> bool:
    """Whether the name is UTF-8: protobuf hands out other bytes as bytes."""
    return isinstance(name, str)


def _declared(value: onnx.ValueInfoProto) -> tuple[int, _KnownShape]:
    tensor = value.type.tensor_type
    shape = None
    if tensor.HasField("shape"):
        # A negative size is how some exporters write a dynamic one; onnxruntime reads it so too.
        shape = tuple(
            dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else None
            for dim in tensor.shape.dim
        )
    return tensor.elem_type, shape


def _inferred_outputs(model: onnx.ModelProto) -> dict[str, tuple[int, _KnownShape]]:
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    _forget_shapes(bare.graph.output)
    inferred = _infer(bare, strict=False) or bare
    return {value.name: _declared(value) for value in inferred.graph.output}


def _forget_shapes(values: Iterable[onnx.ValueInfoProto]) -> None:
    for value in values:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")


def _infer(model: onnx.ModelProto, *, strict: bool) -> onnx.ModelProto | None:
    """Run ONNX's shape inference; None where it fails, as it may for operators it does not know."""
    try:
        return onnx.shape_inference.infer_shapes(model, strict_mode=strict, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return None


def _merge(declared: _KnownShape, inferred: _KnownShape) -> _KnownShape:
    if declared is None or inferred is None:
        return inferred if declared is None else declared
    if len(declared) != len(inferred):
        return None
    return tuple(
        said if followed is None or followed == said else followed if said is None else None
        for said, followed in zip(declared, inferred, strict=True)
    )


def _tensors(
    found: dict[str, tuple[int, _KnownShape]], graph: onnx.GraphProto
) -> tuple[TensorSignature, ...]:
    tensors = []
    for name, (dtype, shape) in found.items():
        if dtype not in _TRITON_DTYPES:
            raise _refused(f"{name!r} is not a tensor that Triton can carry", graph)
        if shape is None:
            raise _refused(f"the rank of {name!r} is not known", graph)
        if 0 in shape:
            raise _refused(f"{name!r} is empty", graph)
        if not name or "\0" in name:
            raise _refused(f"{name!r} is not a name that Triton can carry", graph)
        tensors.append(TensorSignature(name, _TRITON_DTYPES[dtype], shape))
    return tuple(tensors)


def _refused(reason: str, graph: onnx.GraphProto) -> SignatureUnsupported:
    inputs = ", ".join(map(_describe, real_inputs(graph))) or "none"
    outputs = ", ".join(map(_describe, graph.output)) or "none"
    return SignatureUnsupported(
        f"The signature cannot be served: {reason}. The model has "
        f"inputs: {inputs}; outputs: {outputs}"
    )


def _describe(value: onnx.ValueInfoProto) -> str:
    kind: str | None = value.type.WhichOneof("value")
    if kind not in {"tensor_type", "sparse_tensor_type"}:
        return f"{value.name!r} {(kind or 'of no type').removesuffix('_type')}"
    dtype, shape = _declared(value)
    spelling = _TRITON_DTYPES.get(dtype) or _onnx_dtype(dtype)
    if kind == "sparse_tensor_type":
        return f"{value.name!r} sparse tensor"
    if shape is None:
        return f"{value.name!r} {spelling} of unknown rank"
    return str(TensorSignature(value.name, spelling, shape))


def _onnx_dtype(dtype: int) -> str:
    known: dict[int, str] = dict(
        zip(TensorProto.DataType.values(), TensorProto.DataType.keys(), strict=True)
    )
    return known.get(dtype, f"datatype {dtype}")
