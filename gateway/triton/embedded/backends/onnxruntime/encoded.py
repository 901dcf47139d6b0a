"""
Images that come as they are: a request may carry a JPEG in place of the pixels of an input.

The file is decoded where its pixels are used: that spares the copies on the way and the thread that
would wait for them. What cannot be decoded here without a doubt is refused, and the caller decodes
it by other means.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import simplejpeg


class NotDecoded(Exception):
    """The image is damaged, or of a kind that is not decoded here."""


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
