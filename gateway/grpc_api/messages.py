"""
Inferences as gRPC carries them, and as the gateway reads them; the answer on its way back.

Source: Open Inference Protocol, gRPC; Triton, "HTTP/REST and GRPC Protocol" (V2), Parameters
Extension.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2
from tritonclient.utils import serialize_byte_tensor

from gateway.errors import TensorInvalid
from gateway.inference.tensor_answer import TensorAnswer
from gateway.inference.tensor_request import Inference, read_inference

# Where a message has the values of a tensor that does not come raw.
_CONTENTS: Mapping[str, tuple[str, type[np.generic]]] = {
    "BOOL": ("bool_contents", np.bool_),
    "INT8": ("int_contents", np.int8),
    "INT16": ("int_contents", np.int16),
    "INT32": ("int_contents", np.int32),
    "INT64": ("int64_contents", np.int64),
    "UINT8": ("uint_contents", np.uint8),
    "UINT16": ("uint_contents", np.uint16),
    "UINT32": ("uint_contents", np.uint32),
    "UINT64": ("uint64_contents", np.uint64),
    "FP32": ("fp32_contents", np.float32),
    "FP64": ("fp64_contents", np.float64),
    "BYTES": ("bytes_contents", np.object_),
}
_SIZE = "binary_data_size"


def read_request(message: Any) -> Inference:
    """
    Read a ModelInferRequest.

    Raises:
        TensorInvalid: It is no inference request, or asks for what only the gateway may.
    """
    raw = list(message.raw_input_contents)
    if raw and len(raw) != len(message.inputs):
        raise TensorInvalid(
            f"{len(raw)} `raw_input_contents` for {len(message.inputs)} inputs: one for each."
        )
    if raw and any(tensor.HasField("contents") for tensor in message.inputs):
        raise TensorInvalid("Values come in `contents` or in `raw_input_contents`, not in both.")
    values = raw or [_values(tensor) for tensor in message.inputs]
    inputs = [
        {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
            "parameters": {**_parameters(tensor.parameters), _SIZE: len(value)},
        }
        for tensor, value in zip(message.inputs, values, strict=True)
    ]
    outputs = [
        {
            "name": output.name,
            "parameters": {**_parameters(output.parameters), "binary_data": True},
        }
        for output in message.outputs
    ]
    written = {
        "id": message.id,
        "inputs": inputs,
        "outputs": outputs,
        "parameters": {**_parameters(message.parameters), "binary_data_output": True},
    }
    return read_inference(written, values)


def _values(tensor: Any) -> bytes:
    """Write the typed values of a tensor as they would come raw."""
    if tensor.datatype not in _CONTENTS:
        raise TensorInvalid(
            f"Values of {tensor.name[:60]!r}, {tensor.datatype[:40]!r}, come in "
            "`raw_input_contents`."
        )
    field, dtype = _CONTENTS[tensor.datatype]
    if any(descriptor.name != field for descriptor, _ in tensor.contents.ListFields()):
        raise TensorInvalid(f"Values of {tensor.datatype} come in `{field}` alone.")
    given = getattr(tensor.contents, field)
    if dtype is np.object_:
        elements = np.empty(len(given), np.object_)
        elements[:] = list(given)
        written = serialize_byte_tensor(elements)
        return written.item() if written.size else b""
    try:
        return np.fromiter(given, dtype, len(given)).tobytes()
    except OverflowError:
        raise TensorInvalid(f"A value of {tensor.name[:60]!r} is no {tensor.datatype}.") from None


def _parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    read = {}
    for name, parameter in given.items():
        kind = parameter.WhichOneof("parameter_choice")
        if kind is None:
            raise TensorInvalid(f"The parameter {name[:60]!r} has no value.")
        read[name] = getattr(parameter, kind)
    return read


def write_answer(answer: TensorAnswer, inference: Inference) -> Any:
    """Write a ModelInferResponse, with the id that the caller gave, if any."""
    message = service_pb2.ModelInferResponse(
        model_name=answer.chosen.model, model_version=str(answer.version), id=inference.caller_id
    )
    for said, values in answer.outputs():
        output = message.outputs.add(
            name=said["name"], datatype=said["datatype"], shape=said["shape"]
        )
        _write_parameters(output.parameters, said.get("parameters", {}).items())
        message.raw_output_contents.append(bytes(values))
    _write_parameters(message.parameters, answer.said().get("parameters", {}).items())
    return message


def _write_parameters(into: Any, given: Iterable[tuple[str, Any]]) -> None:
    for name, value in given:
        match value:
            case _ if name == _SIZE:
                continue
            case bool():
                into[name].bool_param = value
            case int():
                into[name].int64_param = value
            case float():
                into[name].double_param = value
            case _:
                into[name].string_param = str(value)
