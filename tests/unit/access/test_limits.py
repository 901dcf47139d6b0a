"""How fast a key may ask."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.callers import ANYBODY, Caller, Limits
from gateway.access.limits import RateLimits
from gateway.access.roles import Role
from gateway.errors import RateLimited


def limited(rate_per_s: float | None, name: str = "id", in_flight: int | None = None) -> Caller:
    return Caller(name, "key", Role.INFER, (), Limits(rate_per_s, in_flight))


def test_a_bucket_holds_one_second_and_fills_again() -> None:
    """Ten a second: ten at once, then one every tenth of a second; the refusal says when."""
    limits, caller = RateLimits(), limited(10)
    for left in range(9, -1, -1):
        limits.take(caller, 100.0)
        found = limits.look(caller, 100.0)
        assert found is not None
        assert (found.quota, found.window_s, found.remaining) == (10, 1, left)
    with pytest.raises(RateLimited) as refused:
        limits.take(caller, 100.0)
    assert refused.value.retry_after_s == pytest.approx(0.1)
    limits.take(caller, 100.125)
    with pytest.raises(RateLimited):
        limits.take(caller, 100.125)


def test_callers_have_buckets_of_their_own_and_others_none() -> None:
    """One that is empty holds nobody else up; without a rate there is no limit."""
    limits = RateLimits()
    limits.take(limited(1, "a"), 0.0)
    limits.take(limited(1, "b"), 0.0)
    for _ in range(1000):
        limits.take(limited(None), 0.0)
        limits.take(ANYBODY, 0.0)
    assert limits.look(ANYBODY, 0.0) is None


@given(
    st.floats(0.1, 1000),
    st.sampled_from([1.0, 0.5, 0.25]),
    st.lists(st.floats(0, 0.5), min_size=1, max_size=300),
)
def test_no_more_than_the_rate_ever_passes(
    rate_per_s: float, part: float, pauses_s: list[float]
) -> None:
    """In any stretch of time: one bucket and what was refilled, whatever the pattern."""
    limits, caller, now_s, passed = RateLimits(part=part), limited(rate_per_s), 0.0, 0
    waits_s: list[float] = []
    for pause_s in pauses_s:
        now_s += pause_s
        try:
            limits.take(caller, now_s)
            passed += 1
        except RateLimited as error:
            waits_s.append(error.retry_after_s or 0.0)
    assert all(wait_s > 0 for wait_s in waits_s)
    assert passed <= max(1.0, rate_per_s * part + 1) + now_s * rate_per_s * part + 1e-6


def test_workers_share_what_may_be_in_flight() -> None:
    """Each worker has its part, and one run at least."""
    assert RateLimits(part=0.5).in_flight(limited(None, in_flight=8)) == 4
    assert RateLimits(part=0.25).in_flight(limited(None, in_flight=1)) == 1
    assert RateLimits().in_flight(limited(None)) is None
