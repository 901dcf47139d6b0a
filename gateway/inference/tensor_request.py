"""
A V2 inference as a caller wrote it, and what of it may be passed on to Triton.

Pure. Triton checks tensors against the model's configuration, and its words about them are good.
Here is refused what a caller of the gateway may not say to Triton, and what Triton does not check
well: a size that overflows its arithmetic costs the model its process.

Source: Triton, "HTTP/REST and GRPC Protocol" (V2), Binary Tensor Data Extension, Parameters
Extension; Open Inference Protocol, REST.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.errors import TensorInvalid

Buffer = bytes | memoryview

_SHARED_MEMORY = "shared_memory_"
_SIZE = "binary_data_size"
# What the gateway itself says to the embedded Triton's backend.
_RESERVED = frozenset({"encoded_bytes", "uncontended"})
_ALIAS = "alias"
_ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "UINT8", "INT8"), 1),
    **dict.fromkeys(("UINT16", "INT16", "FP16", "BF16"), 2),
    **dict.fromkeys(("UINT32", "INT32", "FP32"), 4),
    **dict.fromkeys(("UINT64", "INT64", "FP64"), 8),
    "BYTES": 0,
}


@dataclass(frozen=True, slots=True)
class Inference:
    """
    One request.

    Attributes:
        inputs: The JSON objects of the inputs: name, datatype, shape, and data or parameters.
        outputs: Those of the outputs that are wanted; none: all, as the model has them.
        parameters: Of the request.
        values: The binary part, in pieces.
        caller_id: The caller's `id`; "" if it gave none.
    """

    inputs: Sequence[Mapping[str, Any]]
    outputs: Sequence[Mapping[str, Any]]
    parameters: Mapping[str, Any]
    values: Sequence[Buffer]
    caller_id: str = ""

    @property
    def alias(self) -> str | None:
        """The alias that the caller asks for, as a parameter of the request."""
        alias = self.parameters.get(_ALIAS)
        return alias if isinstance(alias, str) and alias else None

    def to_json(self, request_id: str) -> dict[str, Any]:
        """
        Write the JSON part for Triton. The id is ours: it stands in Triton's log and messages, and
        a caller's may be any text.
        """
        written: dict[str, Any] = {"id": request_id, "inputs": self.inputs}
        parameters = {key: value for key, value in self.parameters.items() if key != _ALIAS}
        if parameters:
            written["parameters"] = parameters
        if self.outputs:
            written["outputs"] = self.outputs
        return written


def read_inference(written: object, values: Sequence[Buffer]) -> Inference:
    """
    Read a request.

    Args:
        written: The JSON part, parsed.
        values: The binary part, in pieces.

    Raises:
        TensorInvalid: It is no inference request, or asks for what only the gateway may.
    """
    if not isinstance(written, dict):
        raise TensorInvalid("An inference request is a JSON object.")
    inputs, outputs = _tensors(written, "inputs"), _tensors(written, "outputs")
    _check_sizes(inputs, sum(len(piece) for piece in values))
    if not inputs:
        raise TensorInvalid("An inference request has `inputs`: a list of at least one tensor.")
    caller_id, parameters = written.get("id", ""), written.get("parameters") or {}
    if not isinstance(caller_id, str):
        raise TensorInvalid("`id` is a string.")
    if not isinstance(parameters, dict):
        raise TensorInvalid("`parameters` is an object.")
    if reserved := _RESERVED & parameters.keys():
        raise TensorInvalid(f"The parameter {min(reserved)!r} is the gateway's own.")
    return Inference(inputs, outputs, parameters, values, caller_id)


def _tensors(written: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    tensors = written.get(key)
    if tensors is None:
        return []
    if not isinstance(tensors, list) or not all(isinstance(tensor, dict) for tensor in tensors):
        raise TensorInvalid(f"`{key}` is a list of objects.")
    for tensor in tensors:
        parameters = tensor.get("parameters") or {}
        if not isinstance(parameters, dict):
            raise TensorInvalid(f"The `parameters` of {key} are an object.")
        if any(str(name).startswith(_SHARED_MEMORY) for name in parameters):
            raise TensorInvalid("Shared memory is not offered here: send the values.")
    return tensors


def _check_sizes(inputs: Sequence[Mapping[str, Any]], behind_bytes: int) -> None:
    """Check that every input has as many values as its shape says, in the JSON or behind it."""
    for tensor in inputs:
        name, shape, datatype = (tensor.get(key) for key in ("name", "shape", "datatype"))
        if not isinstance(name, str):
            raise TensorInvalid("An input has a `name`: a string.")
        if not isinstance(datatype, str) or datatype not in _ITEM_BYTES:
            raise TensorInvalid(f"The `datatype` of {name[:60]!r} is none: {str(datatype)[:40]!r}.")
        if not isinstance(shape, list) or not all(_is_size(size) for size in shape):
            raise TensorInvalid(f"The `shape` of {name[:60]!r} is a list of sizes.")
        elements, size_bytes = math.prod(shape), (tensor.get("parameters") or {}).get(_SIZE)
        if size_bytes is None:
            got = _count(tensor.get("data"))
            if got != elements:
                raise TensorInvalid(f"{name[:60]!r} of shape {shape} has {got} values in `data`.")
            continue
        if "data" in tensor or not _is_size(size_bytes):
            raise TensorInvalid(f"{name[:60]!r} has `data`, or a `{_SIZE}`: a number of bytes.")
        behind_bytes -= size_bytes
        if datatype != "BYTES" and size_bytes != elements * _ITEM_BYTES[datatype]:
            raise TensorInvalid(
                f"{name[:60]!r} of {datatype} {shape} has {size_bytes} bytes, not "
                f"{elements * _ITEM_BYTES[datatype]}."
            )
    if behind_bytes:
        raise TensorInvalid(f"The inputs' `{_SIZE}` and the bytes behind the JSON do not agree.")


def _is_size(size: object) -> bool:
    return isinstance(size, int) and not isinstance(size, bool) and size >= 0


def _count(data: object) -> int:
    """Count the values of nested lists; what is no list of them is for Triton to say."""
    if not isinstance(data, list):
        raise TensorInvalid("An input has `data`: a list; or its values behind the JSON.")
    if data and isinstance(data[0], list):
        return sum(_count(part) for part in data)
    return len(data)
