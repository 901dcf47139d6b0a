"""
Apply a preprocessing record: pixels in, the model's input out. Runs in a worker thread, no locks.

The 256 values that a channel can have are normalised once, in double precision, and looked up
afterwards: exact to the last bit of the model's datatype, and one pass over the image.

Source: Pillow, Image.resize, ImageOps.pad; torchvision, CenterCrop (offsets rounded half to even).
"""

import functools

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from gateway.converter.signature import TensorSignature
from gateway.errors import ImageMismatch
from gateway.preprocessing.record import Preprocessing

NUMPY_OF_TRITON: dict[str, type[np.generic]] = {
    "UINT8": np.uint8,
    "INT8": np.int8,
    "UINT16": np.uint16,
    "INT16": np.int16,
    "UINT32": np.uint32,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT64": np.uint64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
_MAX_RESIZED_PIXELS = 64_000_000


def preprocess(
    pixels: npt.NDArray[np.uint8], record: Preprocessing, wanted: TensorSignature
) -> npt.NDArray[np.generic]:
    """
    Turn the pixels of one image into a model's input.

    Args:
        pixels: uint8 [H, W, 3], RGB.
        record: How.
        wanted: The input, which the record fits (`check_preprocessing`).

    Returns:
        The wanted dtype, C-contiguous, [1, …] in the record's layout; without the batch axis where
        the input has none.

    Raises:
        ImageMismatch: The image has another size than the input, and the record does not resize.
    """
    if record.channel_order == "GRAY":
        pixels = np.asarray(Image.fromarray(pixels).convert("L"))
    resized = _resize(pixels, record)
    if resized.ndim == 2:
        resized = resized[:, :, np.newaxis]
    planes = _normalize(resized, record, wanted.dtype)
    tensor = planes[np.newaxis] if len(wanted.shape) == 4 else planes
    fits = zip(wanted.shape, tensor.shape, strict=True)
    if not all(size in {None, got} for size, got in fits):
        raise ImageMismatch(f"The model takes {wanted}; the image gives {list(tensor.shape)}.")
    return tensor


def _resize(pixels: npt.NDArray[np.uint8], record: Preprocessing) -> npt.NDArray[np.uint8]:
    if record.size is None or record.size == pixels.shape[:2]:
        if record.resize != "center_crop":
            return pixels
    elif record.resize == "none":
        raise ImageMismatch(
            f"The model takes images of {record.size[0]}x{record.size[1]} (height x width); "
            f"this one has {pixels.shape[0]}x{pixels.shape[1]}."
        )
    assert record.size is not None  # only "none" comes without a size
    height, width = record.size
    image = Image.fromarray(pixels)
    resample = Image.Resampling[record.interpolation.upper()]
    if record.resize == "letterbox":
        ratio = image.width / image.height
        if 0 in {round(width / ratio), round(height * ratio)}:
            raise ImageMismatch("The image is too long and thin: nothing would be left of it.")
        fill = record.fill if image.mode == "L" else (record.fill,) * 3
        return np.asarray(ImageOps.pad(image, (width, height), resample, fill))
    if record.resize == "stretch":
        return np.asarray(image.resize((width, height), resample))
    target = _shorter_side_to(image, record.shorter_side or max(height, width))
    if target[0] * target[1] > _MAX_RESIZED_PIXELS:
        raise ImageMismatch("The image is too long and thin: scaled up, it is too large.")
    image = image if image.size == target else image.resize(target, resample)
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return np.asarray(image.crop((left, top, left + width, top + height)))


def _shorter_side_to(image: Image.Image, shorter_side: int) -> tuple[int, int]:
    """Scale both sides; the longer one is cut off to whole pixels, as torchvision does."""
    if image.width <= image.height:
        return shorter_side, int(shorter_side * image.height / image.width)
    return int(shorter_side * image.width / image.height), shorter_side


def _normalize(
    pixels: npt.NDArray[np.uint8], record: Preprocessing, triton_dtype: str
) -> npt.NDArray[np.generic]:
    dtype = NUMPY_OF_TRITON[triton_dtype]
    ordered = pixels[:, :, ::-1] if record.channel_order == "BGR" else pixels
    if not record.normalizes:
        laid = ordered if record.layout == "NHWC" else ordered.transpose(2, 0, 1)
        return np.ascontiguousarray(laid, dtype=dtype)
    height, width = pixels.shape[:2]
    tables = _tables(record, triton_dtype)
    if record.layout == "NHWC":
        out = np.empty((height, width, record.channels), dtype)
        for channel in range(record.channels):
            out[:, :, channel] = tables[channel][ordered[:, :, channel]]
        return out
    out = np.empty((record.channels, height, width), dtype)
    for channel in range(record.channels):
        np.take(tables[channel], ordered[:, :, channel], out=out[channel], mode="clip")
    return out


@functools.lru_cache(maxsize=256)
def _tables(record: Preprocessing, triton_dtype: str) -> npt.NDArray[np.generic]:
    """Normalise every value that a channel can have: [3, 256]."""
    values = np.arange(256, dtype=np.float64) * record.scale
    mean, std = np.array(record.mean), np.array(record.std)
    tables: npt.NDArray[np.generic] = (values - mean[:, np.newaxis]) / std[:, np.newaxis]
    return tables.astype(NUMPY_OF_TRITON[triton_dtype])
