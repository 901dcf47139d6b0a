"""
Images that come as the elements of a BYTES tensor.

Source: Triton, Binary Tensor Data Extension (each element is preceded by its length, four bytes,
little endian); OpenVINO Model Server, "Support for image preprocessing" (BYTES for an image input).
"""

import base64
import binascii
import contextlib
import itertools
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gateway.errors import BatchTooLarge, GatewayError, TensorInvalid
from gateway.inference.tensor_request import Inference
from gateway.registry.versions import ModelVersion


@dataclass(frozen=True, slots=True)
class ImagePart:
    """
    Images of one call that go through the model together.

    Attributes:
        encoded: The files' bytes.
        first: The position of the first of them in the call.
        of: How many the call has.
    """

    encoded: Sequence[bytes]
    first: int
    of: int

    @contextlib.contextmanager
    def blaming(self, index: int) -> Iterator[None]:
        """Have errors name an image by its position in the call, if there is more than one."""
        try:
            yield
        except GatewayError as error:
            if self.of == 1:
                raise
            raise type(error)(f"Image {self.first + index}: {error.detail}") from error


def parts_of(images: Sequence[bytes], *, most: int) -> list[ImagePart]:
    """
    Cut the images of a call into parts of nearly equal length, in order.

    Args:
        images: The files' bytes, at least one.
        most: The largest part.
    """
    count = -(-len(images) // most)
    bounds = [len(images) * part // count for part in range(count + 1)]
    return [
        ImagePart(images[begin:end], begin, len(images))
        for begin, end in itertools.pairwise(bounds)
    ]


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
