"""
From a model's scores to a category.

Source: the original contract: the index of the largest value of the first output, flattened, the
first of equals, written with two digits.
"""

import numpy as np
import numpy.typing as npt

from gateway.errors import ModelOutputInvalid


def category(scores: npt.NDArray[np.generic]) -> str:
    """
    Name the class with the largest score.

    Args:
        scores: The model's first output, any shape, for one image.

    Returns:
        The index of the first largest value of the flattened scores, at least two digits: "07".

    Raises:
        ModelOutputInvalid: There are no scores, or one of them is NaN or infinite.
    """
    if scores.size == 0:
        raise ModelOutputInvalid("The model answered no scores.")
    if scores.dtype.kind == "f" and not np.isfinite(scores).all():
        raise ModelOutputInvalid("The model answered scores that are not finite numbers.")
    return f"{int(np.argmax(scores)):02d}"
