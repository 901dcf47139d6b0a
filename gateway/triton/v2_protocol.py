"""
One inference, as bytes: the request that asks for it and what the answer says.

Pure. Only what the gateway needs of the protocol: one input, one output, both binary or the input
in shared memory.

Source: Triton, "HTTP/REST and GRPC Protocol" (V2), Binary Tensor Data Extension and Shared-Memory
Extension.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import orjson
from tritonclient.utils import triton_to_np_dtype

from gateway.triton.tensor import InputTensor

Buffer = bytes | memoryview

INFERENCE_HEADER_LENGTH = "inference-header-content-length"


# A chain of comparisons; the same few names come all the time.
_dtype = functools.cache(cast("Callable[[str], Any]", triton_to_np_dtype))


class AnswerInvalid(Exception):
    """The body is no answer to the request."""


def encode_request(
    name: str,
    version: int,
    *,
    host: str,
    input_name: str,
    input_dtype: str,
    tensor: InputTensor,
    shared: bool,
    output_name: str,
    request_id: str,
    parameters: Mapping[str, int | bool],
    headers: Mapping[str, str],
) -> Sequence[Buffer]:
    """
    Write the HTTP request for one inference.

    Args:
        name, version: The model; the name is one of ours and needs no quoting.
        host: For the Host header.
        input_name, input_dtype, tensor: The input, in Triton's spelling.
        shared: Name the tensor's slot instead of sending its values.
        output_name: The output that is wanted.
        request_id: Comes back in the answer, and stands in Triton's log and traces.
        parameters: Of the request, for a backend that knows them.
        headers: Further headers.

    Returns:
        The pieces of the request, in order. The last one is the tensor's own memory if it is sent.
    """
    given, values = describe_input(input_name, input_dtype, tensor, shared=shared)
    asked: dict[str, Any] = {
        "id": request_id,
        "inputs": [given],
        "outputs": [{"name": output_name, "parameters": {"binary_data": True}}],
    }
    if parameters:
        asked["parameters"] = parameters
    return encode_forward(name, version, host=host, inference=asked, values=values, headers=headers)


def describe_input(
    name: str, dtype: str, tensor: InputTensor, *, shared: bool
) -> tuple[dict[str, Any], Sequence[Buffer]]:
    """
    Describe an input to Triton.

    Args:
        name, dtype, tensor: The input, in Triton's spelling.
        shared: Name the tensor's slot instead of sending its values.

    Returns:
        The JSON object of the input, and its binary part: the tensor's own memory, or nothing.
    """
    given: dict[str, Any] = {"name": name, "shape": tensor.array.shape, "datatype": dtype}
    size_bytes = tensor.array.nbytes
    if shared:
        assert tensor.region is not None
        assert tensor.slot is not None
        given["parameters"] = {
            "shared_memory_region": tensor.region.name,
            "shared_memory_offset": tensor.slot.offset,
            "shared_memory_byte_size": size_bytes,
        }
        return given, []
    given["parameters"] = {"binary_data_size": size_bytes}
    if size_bytes == 0:
        return given, []
    return given, [np.ascontiguousarray(tensor.array).reshape(-1).view(np.uint8).data]


def encode_forward(
    name: str,
    version: int,
    *,
    host: str,
    inference: Mapping[str, Any],
    values: Sequence[Buffer],
    headers: Mapping[str, str],
) -> Sequence[Buffer]:
    """
    Write the HTTP request for an inference whose JSON part is made already.

    Args:
        name, version, host, headers: As in `encode_request`.
        inference: The JSON part.
        values: The binary part, in pieces; sent as they are.
    """
    written = orjson.dumps(inference)
    size_bytes = sum(len(piece) for piece in values)
    further = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
    head = (
        f"POST /v2/models/{name}/versions/{version}/infer HTTP/1.1\r\n"
        f"Host: {host}\r\n"
        f"Inference-Header-Content-Length: {len(written)}\r\n"
        f"Content-Length: {len(written) + size_bytes}\r\n"
        f"{further}\r\n"
    ).encode("latin-1")
    return [head + written, *values]


def decode_answer(
    headers: Mapping[str, str], body: bytes, output_name: str
) -> npt.NDArray[np.generic]:
    """
    Read an output.

    Args:
        headers: The answer's headers, names in lower case.
        body: JSON of INFERENCE_HEADER_LENGTH bytes, and the outputs' values after it, if they are
            not in the JSON itself.
        output_name: Which output.

    Returns:
        The output's dtype and shape, batch axis included; read-only.

    Raises:
        AnswerInvalid: There is no such output, or not of numbers, or the sizes do not agree.
    """
    try:
        length = int(headers.get(INFERENCE_HEADER_LENGTH, len(body)))
        outputs = orjson.loads(memoryview(body)[:length])["outputs"]
        offset = length
        for output in outputs:
            size_bytes = int(output.get("parameters", {}).get("binary_data_size", 0))
            if output["name"] == output_name:
                dtype = _dtype(output["datatype"])
                if dtype is None or dtype is np.object_:
                    raise AnswerInvalid(f"output {output_name!r} holds no numbers")
                if "data" in output:
                    return np.array(output["data"], dtype).reshape(output["shape"])
                values = np.frombuffer(memoryview(body)[offset : offset + size_bytes], dtype)
                if math.prod(output["shape"]) != values.size:
                    raise AnswerInvalid(f"output {output_name!r} is not of its own shape")
                return values.reshape(output["shape"])
            offset += size_bytes
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise AnswerInvalid(f"the answer cannot be read: {error}") from error
    raise AnswerInvalid(f"no output {output_name!r} in the answer")


def decode_error(body: bytes) -> str:
    """Read the text of an error's body, whatever it is."""
    try:
        return str(orjson.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")
