"""What the reconciler asks of a replica, as a pure decision."""

from typing import Any

import pytest

from gateway.triton.actions import Action, DesiredModel, decide
from gateway.triton.quarantine import STRIKES_TO_QUARANTINE, Strikes


def _wanting(*versions: int) -> DesiredModel:
    return DesiredModel("m", "{}", frozenset(versions))


@pytest.mark.parametrize(
    ("desired", "ready", "held_back", "config_known", "expected"),
    [
        ((), (), (), False, None),
        ((), (1,), (), True, ()),
        ((1,), (), (), False, (1,)),
        ((1,), (1,), (), True, None),
        ((1,), (1,), (), False, (1,)),
        ((1, 2), (1,), (), True, (1, 2)),
        ((2,), (1,), (), True, (2,)),
        ((1, 2), (1,), (2,), True, None),
        ((1, 2), (), (2,), False, (1,)),
        ((2,), (1,), (2,), True, None),
        ((1,), (1,), (1,), False, None),
    ],
    ids=[
        "nothing wanted, nothing there",
        "nothing wanted: unload",
        "wanted and absent: load",
        "as it should be: nothing",
        "ready with an unknown config: load again",
        "one more version",
        "another version instead",
        "the missing one failed lately: wait",
        "a failed one does not keep its sibling out",
        "the successor failed: the predecessor stays",
        "a failed reload does not unload what serves",
    ],
)
def test_decide(
    desired: Any, ready: Any, held_back: Any, config_known: bool, expected: Any
) -> None:
    """Each situation has one right action, and none where nothing differs."""
    action = decide(
        _wanting(*desired), frozenset(ready), frozenset(held_back), config_known=config_known
    )
    assert action == (None if expected is None else Action("m", frozenset(expected), "m"))


def test_a_version_that_dies_without_ever_answering_is_convicted() -> None:
    """So many deaths in a row convict; an answer in between begins the count anew."""
    strikes, version = Strikes(), ("m", 1)
    for _ in range(STRIKES_TO_QUARANTINE - 1):
        assert strikes.died([version]) == []
    strikes.answered(version)
    for _ in range(STRIKES_TO_QUARANTINE - 1):
        assert strikes.died([version, ("other", 1)]) == []
    assert version in strikes.died([version])
