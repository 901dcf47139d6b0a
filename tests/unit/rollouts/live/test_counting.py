"""Two score vectors for one request: versions may know other classes."""

import numpy as np
import pytest

from gateway.rollouts.live.counting import StepCounts
from gateway.rollouts.state.classes import ClassMap, class_map

ABC, CAB, ABCD, AB = ("a", "b", "c"), ("c", "a", "b"), ("a", "b", "c", "d"), ("a", "b")


@pytest.mark.parametrize(
    ("champion", "challenger", "sizes", "expected"),
    [
        pytest.param(ABC, ABC, (3, 3), None, id="the same"),
        pytest.param(ABC, CAB, (3, 3), (2, 0, 1), id="another order"),
        pytest.param(ABC, ABCD, (3, 4), (0, 1, 2, -4), id="one class more"),
        pytest.param(ABC, AB, (3, 2), (0, 1), id="one class less"),
        pytest.param(None, None, (3, 4), (0, 1, 2, -4), id="one more, without labels"),
        pytest.param(ABC, None, (3, 4), (0, 1, 2, -4), id="one more, one side has labels"),
        pytest.param(None, None, (3, 2), (0, 1), id="one less, without labels"),
        pytest.param(None, None, (3, 3), None, id="no labels"),
        pytest.param(None, None, (None, 3), None, id="unknown size"),
        pytest.param(("a", "a", "b"), ABCD, (3, 4), (0, 1, 2, -4), id="a label names two classes"),
    ],
)
def test_classes_are_translated_as_far_as_they_are_known(
    champion: tuple[str, ...] | None,
    challenger: tuple[str, ...] | None,
    sizes: tuple[int | None, int | None],
    expected: ClassMap | None,
) -> None:
    """By label where both have labels, else by number; below 0 where only the challenger has it."""
    assert class_map(champion, challenger, sizes=sizes) == expected


@pytest.mark.parametrize(
    ("champion", "challenger", "classes", "compared", "disagreed", "apart"),
    [
        pytest.param([0.8, 0.1, 0.1], [0.1, 0.8, 0.1], (2, 0, 1), 1, 0, 0, id="another order"),
        pytest.param(
            [0.8, 0.1, 0.1], [0.56, 0.07, 0.07, 0.3], (0, 1, 2, -4), 1, 0, 0, id="one class more"
        ),
        pytest.param([0.8, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7], (0, 1, 2, -4), 0, 0, 1, id="the new"),
        pytest.param([0.1, 0.1, 0.8], [0.5, 0.5], (0, 1), 0, 0, 1, id="the one that it lacks"),
    ],
)
def test_what_both_know_is_compared(
    champion: list[float],
    challenger: list[float],
    classes: ClassMap,
    compared: int,
    disagreed: int,
    apart: int,
) -> None:
    """
    Equal scores of the classes that both know are no distance, whatever a new class takes of the
    whole; an answer that only one of them could give is told apart.
    """
    counts = StepCounts()
    counts.compared_scores(np.array([champion]), np.array([challenger]), classes)
    observed = counts.freeze()
    assert (observed.pairs.compared, observed.pairs.disagreed, observed.apart) == (
        compared,
        disagreed,
        apart,
    )
    assert sum(observed.pairs.distances.counts.get(bucket, 0) for bucket in (0, 1)) == compared
