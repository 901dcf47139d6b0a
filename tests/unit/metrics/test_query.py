"""Which rows are read for which time."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gateway.metrics.query import segments
from gateway.store.request_metrics import DAY_S, HOUR_S, MINUTE_S, Level

_NOTHING = {MINUTE_S: Level(), HOUR_S: Level(), DAY_S: Level()}


def test_a_fine_step_reads_minutes() -> None:
    """With a step of minutes, nothing coarser is read while there are minutes."""
    levels = _NOTHING | {HOUR_S: Level(complete_to_s=10 * HOUR_S)}
    (only,) = segments(0, 2 * HOUR_S, MINUTE_S, levels)
    assert only.resolution_s == MINUTE_S


def test_a_coarse_step_reads_what_is_rolled_up() -> None:
    """Whole hours that are complete are read as hours, the ragged ends as minutes."""
    levels = _NOTHING | {HOUR_S: Level(complete_to_s=5 * HOUR_S)}
    found = segments(1800, 7 * HOUR_S, HOUR_S, levels)
    assert [(part.resolution_s, part.start_s, part.end_s) for part in found] == [
        (MINUTE_S, 1800, HOUR_S),
        (HOUR_S, HOUR_S, 5 * HOUR_S),
        (MINUTE_S, 5 * HOUR_S, 7 * HOUR_S),
    ]


@given(
    st.integers(0, 5 * DAY_S),
    st.integers(1, 5 * DAY_S),
    st.sampled_from([None, 60, 300, HOUR_S, DAY_S]),
    st.integers(0, 96),
    st.integers(0, 4),
    st.integers(0, 96),
    st.integers(0, 4),
)
def test_every_minute_is_read_just_once(
    start_s: int, length_s: int, step_s: int | None, hours: int, days: int, gone_h: int, gone_d: int
) -> None:
    """Whatever is rolled up or deleted: segments follow on one another and cover the time."""
    days = min(days, hours // 24)
    levels = {
        MINUTE_S: Level(0, min(gone_h, hours) * HOUR_S),
        HOUR_S: Level(hours * HOUR_S, min(gone_d, days, gone_h // 24) * DAY_S),
        DAY_S: Level(days * DAY_S, 0),
    }
    found = segments(start_s, start_s + length_s, step_s, levels)
    assert found[0].start_s <= start_s
    assert found[-1].end_s >= start_s + length_s
    for one, other in pairwise(found):
        assert one.end_s == other.start_s
