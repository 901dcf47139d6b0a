"""Images that calibrate, and images that judge."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.rollouts.control.calibration_split import calibration_indexes


@given(files=st.lists(st.text(max_size=20), unique=True, max_size=200), wanted=st.integers(0, 300))
def test_a_quarter_at_most_and_always_the_same(files: list[str], wanted: int) -> None:
    """No more than asked for and than a quarter; by names alone, whatever their order."""
    chosen = calibration_indexes(files, wanted)
    assert len(chosen) == min(wanted, len(files) // 4)
    assert chosen == sorted(set(chosen))
    shuffled = files[::-1]
    again = {shuffled[index] for index in calibration_indexes(shuffled, wanted)}
    assert again == {files[index] for index in chosen}
