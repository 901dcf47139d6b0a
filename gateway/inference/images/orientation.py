"""
Turn pixels as the photograph's EXIF says, for versions whose record asks for it.

Source: Pillow, ImageOps.exif_transpose, whose pixels these are to the bit; Exif 2.32, tag 0x0112.
"""

import io
import struct
import warnings

import numpy as np
from PIL import ExifTags, Image

from gateway.inference.images.decoding import FORMATS, Pixels

_TAG = ExifTags.Base.Orientation
# What cannot be read of metadata turns nothing.
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
)


def upright(pixels: Pixels, encoded: bytes) -> Pixels:
    """
    Turn an image's pixels upright.

    Args:
        pixels: uint8 [H, W, 3], as `decode_image` made them of `encoded`.
        encoded: The file's bytes.

    Returns:
        uint8, C-contiguous, [H, W, 3] or [W, H, 3].
    """
    match _orientation(encoded):
        case 2:
            turned = pixels[:, ::-1]
        case 3:
            turned = pixels[::-1, ::-1]
        case 4:
            turned = pixels[::-1]
        case 5:
            turned = pixels.swapaxes(0, 1)
        case 6:
            turned = pixels[::-1].swapaxes(0, 1)
        case 7:
            turned = pixels[::-1, ::-1].swapaxes(0, 1)
        case 8:
            turned = pixels[:, ::-1].swapaxes(0, 1)
        case _:
            return pixels
    return np.ascontiguousarray(turned)


def _orientation(encoded: bytes) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
                # Pillow turns a TIFF while it decodes it.
                return 1 if image.format == "TIFF" else image.getexif().get(_TAG, 1)
    except _UNREADABLE:
        return 1
