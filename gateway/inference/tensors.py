"""
Pixels to the tensor that a version takes, and the smallest tensor that it would take.

Without a preprocessing record the gateway sends raw pixels where the signature allows it: channels
last, three of them, height and width as the image has them. It never guesses a normalisation.
"""

import numpy as np
import numpy.typing as npt

from gateway.errors import ImageMismatch, PreprocessingRequired
from gateway.inference.images import Pixels
from tools.onnx_signature import TensorSignature

_NUMPY_OF_TRITON: dict[str, type[np.generic]] = {
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
_PROBE_SIDE = 32


def to_tensor(pixels: Pixels, wanted: TensorSignature) -> npt.NDArray[np.generic]:
    """
    Give pixels the shape and dtype of a model's input.

    Args:
        pixels: uint8 [H, W, 3].
        wanted: The model's one input: [N, H, W, 3].

    Returns:
        The wanted dtype, values 0-255 unscaled, shape [1, H, W, 3].

    Raises:
        PreprocessingRequired: The input is not of the shape [N, H, W, 3].
        ImageMismatch: The input's height or width is fixed and the image's is another.
    """
    if not _takes_raw_pixels(wanted):
        raise PreprocessingRequired(
            f"The model takes {_describe(wanted)}, not raw [N, H, W, 3] pixels, and carries no "
            "preprocessing record. Register it with one: preprocessing=imagenet, unit, or a record."
        )
    tensor = pixels[np.newaxis]
    if not all(size in {None, got} for size, got in zip(wanted.shape, tensor.shape, strict=True)):
        raise ImageMismatch(
            f"The model takes {_describe(wanted)}; the image gives {list(tensor.shape)}."
        )
    return tensor.astype(_NUMPY_OF_TRITON[wanted.dtype], copy=False)


def probe_tensor(wanted: TensorSignature) -> npt.NDArray[np.generic]:
    """Make the input of a probe: zeros, one item, every free side 32."""
    free_side = {0: 1}
    shape = [
        free_side.get(axis, _PROBE_SIDE) if size is None else size
        for axis, size in enumerate(wanted.shape)
    ]
    return np.zeros(shape, dtype=_NUMPY_OF_TRITON[wanted.dtype])


def _takes_raw_pixels(wanted: TensorSignature) -> bool:
    return (
        len(wanted.shape) == 4
        and wanted.shape[0] in {None, 1}
        and (wanted.shape[3] == 3 or (wanted.shape[3] is None and wanted.shape[1] not in {1, 3}))
        and wanted.dtype in _NUMPY_OF_TRITON
    )


def _describe(wanted: TensorSignature) -> str:
    sides = ", ".join("any" if size is None else str(size) for size in wanted.shape)
    return f"{wanted.dtype} [{sides}]"
