"""
Pixels to the tensor that a version takes.

Without a preprocessing record the gateway sends raw pixels where the signature allows it: channels
last, three of them, height and width as the image has them. It never guesses a normalisation.
"""

import numpy as np
import numpy.typing as npt

from gateway.converter.signature import TensorSignature, takes_raw_pixels
from gateway.errors import ImageMismatch, PreprocessingRequired
from gateway.inference.images.decoding import Pixels
from gateway.preprocessing.pixels import NUMPY_OF_TRITON, preprocess
from gateway.preprocessing.record import Preprocessing


def to_tensor(
    pixels: Pixels, wanted: TensorSignature, record: Preprocessing | None = None
) -> npt.NDArray[np.generic]:
    """
    Give pixels the shape and dtype of a model's input.

    Args:
        pixels: uint8 [H, W, 3].
        wanted: The model's one input: [N, H, W, 3] or [H, W, 3] where there is no record.
        record: The version's preprocessing record; None: values 0-255 as they are.

    Returns:
        The wanted dtype and rank, one image.

    Raises:
        PreprocessingRequired: There is no record, and the input does not take raw pixels.
        ImageMismatch: The input's height or width is fixed and the image's is another.
    """
    if record is not None:
        return preprocess(pixels, record, wanted)
    if not takes_raw_pixels(wanted):
        raise PreprocessingRequired(
            f"The model takes {_describe(wanted)}, not raw [N, H, W, 3] pixels, and carries no "
            "preprocessing record. Register the same file with one: preprocessing=imagenet, unit, "
            "or a record; in MODELS_DIR, put it beside the file as NAME.json."
        )
    tensor = pixels[np.newaxis] if len(wanted.shape) == 4 else pixels
    if not all(size in {None, got} for size, got in zip(wanted.shape, tensor.shape, strict=True)):
        raise ImageMismatch(
            f"The model takes {_describe(wanted)}; the image gives {list(tensor.shape)}."
        )
    return tensor.astype(NUMPY_OF_TRITON[wanted.dtype], copy=False)


def _describe(wanted: TensorSignature) -> str:
    sides = ", ".join("any" if size is None else str(size) for size in wanted.shape)
    return f"{wanted.dtype} [{sides}]"
