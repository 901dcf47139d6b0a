"""The category: the index of the first largest score, written with two digits."""

import numpy as np
import pytest

from gateway.errors import ModelOutputInvalid
from gateway.inference.tasks.classify import category


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([[0.1, 0.7, 0.2]], "01"),
        ([[5.0, 5.0]], "00"),
        ([[[[0.0]], [[3.0]]]], "01"),
        ([0.0] * 123 + [1.0], "123"),
        ([-3.0], "00"),
    ],
)
def test_category_is_the_first_largest_of_the_flattened_scores(
    scores: object, expected: str
) -> None:
    """Any shape is flattened; the first of equals wins; more than two digits are kept."""
    assert category(np.array(scores, dtype=np.float32)) == expected


def test_integer_scores_are_scores() -> None:
    """A quantised model may answer integers."""
    assert category(np.array([[1, 9, 3]], dtype=np.uint8)) == "01"


@pytest.mark.parametrize("scores", [[], [np.nan, 1.0], [np.inf], [-np.inf, 0.0]])
def test_scores_that_are_no_numbers_are_refused(scores: list[float]) -> None:
    """NaN, infinity or nothing is an invalid output, never a category."""
    with pytest.raises(ModelOutputInvalid):
        category(np.array(scores, dtype=np.float32))
