"""
What a model configuration must say about an ONNX graph before it may be served.

These are the checks of Triton's C++ onnxruntime backend. A Python-based backend is checked by
nobody: wrong dims or datatypes would load and then serve nonsense. With the same checks here, what
loads on the embedded server loads on NVIDIA's container, and what fails there fails here, with the
same words.

Source: triton-inference-server/onnxruntime_backend, `src/onnxruntime.cc` (ValidateInputs,
ValidateOutputs) and `src/onnxruntime_utils.cc` (CompareDimsSupported), release 24.10.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# onnxruntime's spelling of a tensor's type to Triton's; what is missing here, Triton cannot carry.
TRITON_DTYPES: Mapping[str, str] = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}


class ConfigMismatch(Exception):
    """The model configuration does not fit the graph, or asks for what this backend does not do."""


@dataclass(frozen=True)
class GraphTensor:
    """A graph input or output: Triton datatype; shape with -1 for a dynamic axis, () for rank 0."""

    name: str
    dtype: str
    shape: tuple[int, ...]


def graph_tensors(nodes: Iterable[Any]) -> dict[str, GraphTensor]:
    """
    Translate `InferenceSession.get_inputs()` or `get_outputs()`.

    Raises:
        ConfigMismatch: A sequence, map, optional or a datatype that Triton cannot carry.
    """
    tensors = {}
    for node in nodes:
        dtype = TRITON_DTYPES.get(node.type)
        if dtype is None:
            raise ConfigMismatch(f"Unsupported ONNX Type '{node.type}' for I/O '{node.name}'")
        shape = tuple(dim if isinstance(dim, int) and dim >= 0 else -1 for dim in node.shape)
        tensors[node.name] = GraphTensor(node.name, dtype, shape)
    return tensors


def check_config(
    config: Mapping[str, Any],
    *,
    inputs: Mapping[str, GraphTensor],
    overridable: Mapping[str, GraphTensor],
    outputs: Mapping[str, GraphTensor],
) -> None:
    """
    Check the configuration (Triton's JSON of it) against the graph.

    Args:
        config: The model configuration as the backend receives it; dims are strings of integers.
        inputs: The inputs that a request must bring.
        overridable: Initializers that are also graph inputs: they may be listed, as optional.
        outputs: All outputs of the graph.

    Raises:
        ConfigMismatch: With a message that names the model, the tensor, and both sides.
    """
    model = config["name"]
    max_batch_size = int(config.get("max_batch_size", 0))
    for feature in ("sequence_batching", "batch_input", "batch_output"):
        if config.get(feature):
            raise ConfigMismatch(f"model '{model}': {feature} is not supported by this backend")
    if config.get("model_transaction_policy", {}).get("decoupled"):
        raise ConfigMismatch(
            f"model '{model}': a decoupled policy is not supported by this backend"
        )
    _check_inputs(model, max_batch_size, config.get("input", []), inputs, overridable)
    _check_outputs(model, max_batch_size, config.get("output", []), outputs)


def _check_inputs(
    model: str,
    max_batch_size: int,
    listed: Sequence[Mapping[str, Any]],
    inputs: Mapping[str, GraphTensor],
    overridable: Mapping[str, GraphTensor],
) -> None:
    required = [io["name"] for io in listed if not io.get("optional")]
    if len(required) != len(inputs):
        raise ConfigMismatch(
            f"unable to load model '{model}', configuration expects {len(required)} inputs, "
            f"model provides {len(inputs)}"
        )
    allowed = {**inputs, **overridable}
    for io in listed:
        tensor = _known(io, allowed, "input")
        if io.get("optional") and max_batch_size > 0:
            raise ConfigMismatch(
                f"model '{model}', input '{tensor.name}': optional inputs are not supported when "
                "max_batch_size > 0"
            )
        if not io.get("optional") and tensor.name in overridable:
            raise ConfigMismatch(
                f"model '{model}', input '{tensor.name}' has an initializer: list it as optional"
            )
        _check_tensor(model, max_batch_size, io, tensor, exact=False, kind="input")


def _check_outputs(
    model: str,
    max_batch_size: int,
    listed: Sequence[Mapping[str, Any]],
    outputs: Mapping[str, GraphTensor],
) -> None:
    if not listed:
        raise ConfigMismatch(f"unable to load model '{model}', configuration lists no outputs")
    for io in listed:
        tensor = _known(io, outputs, "output")
        _check_tensor(model, max_batch_size, io, tensor, exact=True, kind="output")


def _known(io: Mapping[str, Any], allowed: Mapping[str, GraphTensor], kind: str) -> GraphTensor:
    if io["name"] not in allowed:
        raise ConfigMismatch(
            f"unexpected inference {kind} '{io['name']}', allowed {kind}s are: "
            + ", ".join(sorted(allowed))
        )
    return allowed[io["name"]]


def _check_tensor(
    model: str,
    max_batch_size: int,
    io: Mapping[str, Any],
    tensor: GraphTensor,
    *,
    exact: bool,
    kind: str,
) -> None:
    if tensor.dtype == "TYPE_STRING":
        # The one difference to the C++ backend: DLPack has no strings, and the stub's numpy bridge,
        # which has, was built against numpy 1 and crashes under numpy 2. A graph with a string
        # output still loads when the configuration leaves that output out.
        raise ConfigMismatch(
            f"model '{model}', {kind} '{tensor.name}': TYPE_STRING is not supported by this backend"
        )
    if io["data_type"] != tensor.dtype:
        raise ConfigMismatch(
            f"model '{model}', {kind} '{tensor.name}': the configuration says {io['data_type']}, "
            f"the model says {tensor.dtype}"
        )
    # What the backend sees of a tensor is the reshape, where the configuration has one.
    dims = tuple(int(dim) for dim in (io.get("reshape") or {}).get("shape", io["dims"]))
    if not tensor.shape and max_batch_size == 0:
        if any(dim != 1 for dim in dims):
            raise ConfigMismatch(
                f"model '{model}', tensor '{tensor.name}': the model expects a scalar, "
                f"the configuration specifies dims {list(dims)}; each must be 1"
            )
        return
    _check_dims(model, max_batch_size, tensor, dims, exact=exact)


def _check_dims(
    model: str, max_batch_size: int, tensor: GraphTensor, dims: tuple[int, ...], *, exact: bool
) -> None:
    shape = tensor.shape
    configured = dims
    if max_batch_size > 0:
        if not shape or shape[0] != -1:
            raise ConfigMismatch(
                f"model '{model}', tensor '{tensor.name}': for the model to support batching the "
                "shape should have at least 1 dimension and the first dimension must be -1; but "
                f"shape expected by the model is {list(shape)}"
            )
        configured = (-1, *dims)
    fits = len(shape) == len(configured) and all(
        have == want or (have == -1 and not exact)
        for have, want in zip(shape, configured, strict=True)
    )
    if not fits:
        explained = (
            "an initial batch dimension because max_batch_size > 0 followed by the explicit tensor "
            f"shape, making complete shape {list(configured)}"
            if max_batch_size > 0
            else f"shape {list(configured)}"
        )
        raise ConfigMismatch(
            f"model '{model}', tensor '{tensor.name}': the model expects {len(shape)} dimensions "
            f"(shape {list(shape)}) but the model configuration specifies {len(configured)} "
            f"dimensions ({explained})"
        )
