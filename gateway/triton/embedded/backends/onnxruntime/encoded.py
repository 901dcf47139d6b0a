"""
Images that come as they are: a request may carry a JPEG in place of the pixels of an input.

The request's parameter `encoded_bytes` says so; the input's first bytes are then the file, filled
up to whole pixels. The file is decoded where its pixels are used: that spares the copies on the way
and the thread that would wait for them. What cannot be decoded here without a doubt is refused, and
the caller decodes it by other means.

Source: Triton, "Parameters Extension"; python_backend README (InferenceRequest.parameters).
"""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import simplejpeg

PARAMETER = "encoded_bytes"


class NotDecoded(Exception):
    """The image is damaged, or of a kind that is not decoded here."""


def encoded_bytes(parameters: str) -> int:
    """
    Read from a request's parameters how many bytes of its input are an encoded image.

    Args:
        parameters: The request's parameters, JSON.

    Returns:
        0 for a request that carries pixels.
    """
    return int(json.loads(parameters).get(PARAMETER, 0)) if PARAMETER in parameters else 0


def decode(carrier: npt.NDArray[np.uint8], size_bytes: int, rank: int) -> npt.NDArray[np.uint8]:
    """
    Decode the image that an input carries.

    Args:
        carrier: uint8; its first `size_bytes` bytes are the file.
        size_bytes: Of the file.
        rank: Of the input: 4 with a batch axis, else 3.

    Returns:
        uint8 [1, H, W, 3] or [H, W, 3], RGB.

    Raises:
        NotDecoded: It cannot be.
    """
    try:
        pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(
            carrier.reshape(-1)[:size_bytes].data, "RGB"
        )
    except (ValueError, KeyError) as error:
        raise NotDecoded(str(error)) from error
    return pixels[np.newaxis] if rank == 4 else pixels
