"""
Images that come as the elements of a BYTES tensor, and the pixels that take their place.

Source: Triton, Binary Tensor Data Extension (each element is preceded by its length, four bytes,
little endian); OpenVINO Model Server, "Support for image preprocessing" (BYTES for an image input).
"""

import asyncio
import base64
import binascii
import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway.errors import BatchTooLarge, GatewayError, ImageMismatch, TensorInvalid
from gateway.inference.decoder import Decoder
from gateway.inference.request import ImageRequest
from gateway.inference.tensor_request import Buffer, Inference
from gateway.registry.versions import ModelVersion


def holds_images(inference: Inference, chosen: ModelVersion) -> bool:
    """Whether a request brings encoded images to a version that takes pixels."""
    wanted, given = chosen.signature.inputs, inference.inputs
    return (
        len(wanted) == len(given) == 1
        and len(wanted[0].shape) in {3, 4}
        and wanted[0].dtype != "BYTES"
        and given[0].get("datatype") == "BYTES"
        and given[0].get("name") == wanted[0].name
    )


def images_of(inference: Inference, *, most: int) -> list[bytes]:
    """
    Take the images out of a request's one BYTES tensor of shape [N] or [N, 1].

    Args:
        inference: The request.
        most: The most images that are accepted.

    Raises:
        TensorInvalid: The shape and the elements do not agree. BatchTooLarge: There are more.
    """
    given = inference.inputs[0]
    shape = given.get("shape")
    match shape:
        case [int(count)] | [int(count), 1] if count > 0:
            pass
        case _:
            raise TensorInvalid("Encoded images come as a BYTES tensor of shape [N] or [N, 1].")
    if count > most:
        raise BatchTooLarge(f"{count} images in one call; at most {most} are accepted.")
    images = _from_json(given["data"]) if "data" in given else _elements(b"".join(inference.values))
    if len(images) != count:
        raise TensorInvalid(f"The tensor of shape {shape} holds {len(images)} elements.")
    return images


def _elements(values: bytes) -> list[bytes]:
    elements, at = [], 0
    while at < len(values):
        if at + 4 > len(values):
            raise TensorInvalid("The BYTES tensor ends within the length of an element.")
        (length,) = struct.unpack_from("<I", values, at)
        at += 4 + length
        if at > len(values):
            raise TensorInvalid("The BYTES tensor ends within an element.")
        elements.append(values[at - length : at])
    return elements


def _from_json(data: object) -> list[bytes]:
    flat: list[object] = []
    for element in data if isinstance(data, list) else [data]:
        flat.extend(element if isinstance(element, list) else [element])
    try:
        return [base64.b64decode(str(element), validate=True) for element in flat]
    except (binascii.Error, ValueError):
        raise TensorInvalid("In JSON, encoded images are base64 strings.") from None


async def with_pixels(
    inference: Inference, request: ImageRequest, images: Sequence[bytes], decoder: Decoder
) -> Inference:
    """
    Put pixels in the place of a request's encoded images.

    Args:
        inference: The request.
        request: Says which version; its stages take note of the time.
        images: What `images_of` found.
        decoder: Makes each the input that the version takes.

    Raises:
        GatewayError: As the decoder, the text naming the image by its position if there are more.
        ImageMismatch: The images cannot be one batch.
    """
    tasks = [asyncio.create_task(_decode(request, image, decoder)) for image in images]
    try:
        arrays = [await _at(position, task, len(images)) for position, task in enumerate(tasks)]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    wanted = request.chosen.signature.inputs[0]
    if len(arrays) > 1 and len(wanted.shape) == 3:
        raise ImageMismatch("The model takes one image at a time.")
    for position, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            raise ImageMismatch(
                f"Image {position} gives {list(array.shape)}, image 0 gives "
                f"{list(arrays[0].shape)}: images of one batch have one size."
            )
    pixels = arrays[0] if len(arrays) == 1 else await asyncio.to_thread(np.concatenate, arrays)
    values = np.ascontiguousarray(pixels).reshape(-1).view(np.uint8).data
    given: Mapping[str, Any] = {
        "name": wanted.name,
        "datatype": wanted.dtype,
        "shape": list(pixels.shape),
        "parameters": {"binary_data_size": len(values)},
    }
    pieces: list[Buffer] = [values]
    return replace(inference, inputs=[given], values=pieces)


async def _decode(request: ImageRequest, image: bytes, decoder: Decoder) -> npt.NDArray[np.generic]:
    # Without shared memory nothing has to be released.
    return (await decoder.decode(replace(request, encoded=image), None)).array


async def _at(
    position: int, task: "asyncio.Task[npt.NDArray[np.generic]]", count: int
) -> npt.NDArray[np.generic]:
    try:
        return await task
    except GatewayError as error:
        if count == 1:
            raise
        raise type(error)(f"Image {position}: {error.detail}") from error
