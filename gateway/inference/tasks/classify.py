"""
From a model's scores to a category.

Source: the original contract: the index of the largest value of the first output, flattened, the
first of equals, written with two digits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gateway.errors import ModelOutputInvalid


@dataclass(frozen=True, slots=True)
class Score:
    """One class: its category, its name if the version has names, and its score."""

    category: str
    label: str | None
    score: float


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


def best(
    scores: npt.NDArray[np.generic],
    count: int,
    *,
    labels: Sequence[str] | None = None,
    softmax: bool = False,
) -> list[Score]:
    """
    Name the classes with the largest scores, the largest first; of equals the first.

    Args:
        scores: The model's first output, finite, any shape, for one image.
        count: How many classes; all of them if there are fewer.
        labels: The names of the classes, in order.
        softmax: Turn the scores, which are logits, into probabilities.
    """
    flat = scores.reshape(-1).astype(np.float64)
    if softmax:
        powers = np.exp(flat - flat.max())
        flat = powers / powers.sum()
    order = np.argsort(-flat, kind="stable")[:count]
    named = labels if labels is not None and len(labels) == flat.size else None
    return [
        Score(f"{index:02d}", None if named is None else named[index], float(flat[index]))
        for index in order.tolist()
    ]
