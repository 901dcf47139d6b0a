"""
Turn the bytes of an image into pixels.

The raw preprocessing (the original contract): the first frame as Pillow decodes it, EXIF
orientation not applied, a fourth channel cut off and not blended, no scaling, no resize. What the
original could not take (greyscale with or without alpha, palette, 1-bit, 16-bit, CMYK) is converted
to RGB first. Nothing here talks to Triton or the database, so that it runs in a worker thread
without locks.

JPEGs in colour are decoded by libjpeg-turbo straight into the caller's memory, twice as fast as by
Pillow and with the same pixels to the bit. Whatever it is not sure of is Pillow's to decide.

Source: Pillow, Concepts (modes) and Image file formats; libjpeg-turbo, TurboJPEG API.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, UnidentifiedImageError

from gateway.errors import ImageInvalid, ImageTooLarge, ImageTruncated
from gateway.inference.images.truncation import WatchedFile, ends_early, tags_of

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""What is decoded. An allow-list: Pillow knows many more, some of which run other programs."""

Pixels = npt.NDArray[np.uint8]
"""uint8, C-contiguous, shape [H, W, 3], 0-255, in the order R, G, B."""

Allocate = Callable[[int], npt.NDArray[np.uint8]]
"""Returns so many bytes of memory to draw on, uint8, one axis."""

_GZIP = b"\x1f\x8b"
_JPEG_START = b"\xff\xd8\xff"
# What both libraries convert to RGB alike; Pillow's way with CMYK is another.
_JPEG_COLORS = frozenset({"RGB", "YCbCr"})
# Segments, by marker, that Pillow refuses the file for if they are so short: of JFIF, and pieces of
# a colour profile.
_SHORT_SEGMENTS = {0xE0: (b"JFIF", 8), 0xE2: (b"ICC_PROFILE\0", 15)}
_START_OF_SCAN = 0xDA
# No length stands behind these, and none of them belongs there; 0xFF is filling.
_BARE_MARKERS = frozenset({0x00, 0x01, 0xFF, *range(0xD0, 0xDA)})
_MOST_SEGMENTS = 256

_SMALL_BYTES = 32 * 1024
_SMALL_PIXELS = 256 * 256

# The limit is ours, by pixels of the header, before anything is decoded.
Image.MAX_IMAGE_PIXELS = None

_CONVERTED_MODES = frozenset({"1", "L", "LA", "La", "P", "PA", "CMYK"})
_SIXTEEN_BIT_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I"})


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Largest accepted area, in pixels."""

    pixels: int


def _allocate(size_bytes: int) -> npt.NDArray[np.uint8]:
    return np.empty(size_bytes, np.uint8)


def jpeg_size(encoded: bytes) -> tuple[int, int] | None:
    """
    Read the size of a JPEG that libjpeg-turbo decodes to the same pixels as Pillow, unless it is
    damaged further on.

    Returns:
        Height and width; None for any other file.
    """
    if not encoded.startswith(_JPEG_START):
        return None
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(encoded)
    except (ValueError, KeyError):
        # KeyError: a subsampling that simplejpeg has no name for.
        return None
    if colors not in _JPEG_COLORS or not _ordinary_head(encoded):
        return None
    return height, width


def _ordinary_head(encoded: bytes) -> bool:
    """Whether the segments before the pixels are in order, and none is too short for Pillow."""
    at = 2
    for _ in range(_MOST_SEGMENTS):
        head = encoded[at : at + 4]
        if len(head) < 4 or head[0] != 0xFF or head[1] in _BARE_MARKERS:
            return False
        marker, length = head[1], head[2] << 8 | head[3]
        if marker == _START_OF_SCAN:
            return True
        if marker in _SHORT_SEGMENTS:
            name, shortest = _SHORT_SEGMENTS[marker]
            if length <= shortest and encoded.startswith(name, at + 4):
                return False
        at += 2 + length
    return False


def decodes_at_once(encoded: bytes) -> bool:
    """
    Whether an image takes less time to decode (a tenth of a millisecond) than to be handed to a
    thread and back.
    """
    if len(encoded) > _SMALL_BYTES:
        return False
    size = jpeg_size(encoded)
    return size is not None and size[0] * size[1] <= _SMALL_PIXELS


def decode_image(encoded: bytes, limits: ImageLimits, allocate: Allocate = _allocate) -> Pixels:
    """
    Decode one JPEG, PNG, WebP, BMP, GIF or TIFF.

    Args:
        encoded: The file's bytes.
        limits: Largest accepted area.
        allocate: Where the pixels should lie. Not every format's do in the end.

    Returns:
        uint8, C-contiguous, shape [H, W, 3], 0-255.

    Raises:
        ImageTooLarge: The header declares more pixels than `limits.pixels`; nothing was decoded.
        ImageTruncated: The file ends early.
        ImageInvalid: Not an image of an accepted format, or a damaged one.
    """
    if not encoded:
        raise ImageInvalid("The image is empty.")
    pixels = _decode_jpeg(encoded, limits, allocate)
    if pixels is not None:
        return pixels
    with warnings.catch_warnings():
        # Pillow warns of odd metadata; the pixels are what counts.
        warnings.simplefilter("ignore")
        return _decode_by_pillow(encoded, limits)


def _decode_by_pillow(encoded: bytes, limits: ImageLimits) -> Pixels:
    source, tags = WatchedFile(encoded), None
    try:
        with Image.open(source, formats=FORMATS) as image:
            tags = tags_of(image)
            check_area(image.height, image.width, limits)
            image.load()
            return _to_rgb(image)
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError) as error:
        # Pillow has no class of its own for a file that ends early.
        if ends_early(encoded, source, tags):
            raise ImageTruncated("The image ends early; it is not padded.") from error
        if isinstance(error, UnidentifiedImageError):
            known = ", ".join(FORMATS)
            what = " It is compressed by gzip: send it as it is." if encoded[:2] == _GZIP else ""
            raise ImageInvalid(f"Not an image of an accepted format ({known}).{what}") from None
        raise ImageInvalid("The image is damaged and cannot be decoded.") from error


def _decode_jpeg(encoded: bytes, limits: ImageLimits, allocate: Allocate) -> Pixels | None:
    """Decode a JPEG in colour; None for one that is something else, or damaged in any way."""
    size = jpeg_size(encoded)
    if size is None:
        return None
    check_area(*size, limits)
    pixels = allocate(size[0] * size[1] * 3).reshape(*size, 3)
    try:
        simplejpeg.decode_jpeg(encoded, "RGB", buffer=pixels)
    except (ValueError, KeyError):
        return None
    return pixels


def check_area(height: int, width: int, limits: ImageLimits) -> None:
    """
    Check what an image's header declares.

    Raises:
        ImageTooLarge: More pixels than `limits` allow.
    """
    if width * height > limits.pixels:
        raise ImageTooLarge(
            f"The image has {width}x{height} = {width * height} pixels; "
            f"at most {limits.pixels} are accepted."
        )


def _to_rgb(image: Image.Image) -> Pixels:
    if image.mode in _SIXTEEN_BIT_MODES:
        return _from_sixteen_bit(image)
    if image.mode in _CONVERTED_MODES:
        image = image.convert("RGB")
    pixels = np.asarray(image)
    if pixels.ndim != 3 or pixels.dtype != np.uint8 or pixels.shape[2] < 3:
        raise ImageInvalid(f"Images of Pillow's mode {image.mode} are not accepted.")
    return np.ascontiguousarray(pixels[:, :, :3])


def _from_sixteen_bit(image: Image.Image) -> Pixels:
    """Scale 16-bit grey to 8-bit, rounded to the nearest, and repeat it for R, G and B."""
    grey = np.asarray(image)
    if grey.min() < 0 or grey.max() > 0xFFFF:
        raise ImageInvalid("Greyscale of more than 16 bits is not accepted.")
    scaled = ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.repeat(scaled[:, :, np.newaxis], 3, axis=2)
