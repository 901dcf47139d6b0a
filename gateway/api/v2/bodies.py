"""
Bodies of V2 inferences as HTTP carries them: compression, the JSON part, the binary part; and the
answer on its way back.

Source: Triton, Binary Tensor Data Extension (Inference-Header-Content-Length; 0 means that the body
is the one input's value).
"""

import asyncio
import struct
import zlib

import orjson
from fastapi import Request, Response

from gateway.errors import BodyTooLarge, ProtocolUnsupported, TensorInvalid
from gateway.inference.tensor_answer import TensorAnswer
from gateway.inference.tensor_request import Inference, read_inference
from gateway.registry.versions import ModelVersion

_HEADER_LENGTH = "Inference-Header-Content-Length"
_LARGE_BYTES = 1 << 18
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


async def receive(request: Request, chosen: ModelVersion, *, limit_bytes: int) -> Inference:
    """
    Read an inference request.

    Args:
        request: Its body may be compressed (gzip, deflate).
        chosen: A version of the model: what the one input is, where the body is its value.
        limit_bytes: The longest body, after decompression.

    Raises:
        TensorInvalid: It cannot be read. BodyTooLarge: It is too long.
        ProtocolUnsupported: Another compression.
    """
    body = await _inflated(request, limit_bytes)
    declared = request.headers.get(_HEADER_LENGTH)
    if declared is None:
        length = len(body)
    elif declared.isascii() and declared.isdecimal() and int(declared) <= len(body):
        length = int(declared)
    else:
        raise TensorInvalid(f"{_HEADER_LENGTH} is no length within the body.")
    if length == 0 and declared is not None:
        return _one_value(body, chosen)
    rest = memoryview(body)
    try:
        if length > _LARGE_BYTES:
            written = await asyncio.to_thread(orjson.loads, rest[:length])
        else:
            written = orjson.loads(rest[:length])
    except ValueError as error:
        raise TensorInvalid(f"The JSON of the request cannot be read: {error}.") from None
    return read_inference(written, [rest[length:]] if length < len(body) else [])


def _one_value(body: bytes, chosen: ModelVersion) -> Inference:
    if len(chosen.signature.inputs) != 1:
        raise TensorInvalid("Only a model with one input takes its value without a description.")
    (wanted,) = chosen.signature.inputs
    if len(wanted.shape) not in {3, 4}:
        raise TensorInvalid("A body without a description is an image: this model takes none.")
    given = {"name": wanted.name, "datatype": "BYTES", "shape": [1]}
    return Inference([given], [], {}, [struct.pack("<I", len(body)), body])


async def _inflated(request: Request, limit_bytes: int) -> bytes:
    body, encoding = await request.body(), request.headers.get("content-encoding", "identity")
    if encoding == "identity":
        return body
    if encoding not in {"gzip", "deflate"}:
        raise ProtocolUnsupported(f"Bodies are compressed by gzip or deflate, not {encoding[:40]}.")
    inflate = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        inflated = await asyncio.to_thread(inflate.decompress, body, limit_bytes + 1)
    except zlib.error:
        raise TensorInvalid(f"The body is no {encoding}.") from None
    if len(inflated) > limit_bytes:
        raise BodyTooLarge(f"The body is larger than {limit_bytes} bytes (MAX_BODY_BYTES).")
    if not inflate.eof:
        raise TensorInvalid("The compressed body ends early.")
    return inflated


def respond(answer: TensorAnswer, inference: Inference) -> Response:
    """Give the answer back, with the id that the caller gave, if any."""
    body, json_bytes = answer.named(inference.caller_id)
    if not answer.has_values:
        return Response(body, media_type="application/json")
    headers = {_HEADER_LENGTH: str(json_bytes)}
    return Response(body, media_type="application/octet-stream", headers=headers)
