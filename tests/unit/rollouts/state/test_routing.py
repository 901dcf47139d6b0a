import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gateway.rollouts.state.routing import Route, RoutingTable, choose, mirrors

KEYS = [f"caller-{number}" for number in range(20_000)]


def route(weight: float, salt: str = "r1", mirror_share: float = 0.0) -> Route:
    return Route("m", 1, 2, weight=weight, mirror_share=mirror_share, salt=salt)


@given(st.text(), st.floats(0, 100), st.floats(0, 100))
def test_raising_a_weight_only_moves_callers_to_the_challenger(
    key: str, one: float, other: float
) -> None:
    """A caller that the challenger answers at a weight is answered by it at every larger one."""
    low, high = sorted((one, other))
    if choose(route(low), key) == 2:
        assert choose(route(high), key) == 2


@given(st.text(), st.floats(0, 100))
def test_a_caller_stays_on_its_side(key: str, weight: float) -> None:
    """The same key gets the same version every time, as text or as bytes."""
    first = choose(route(weight), key)
    assert choose(route(weight), key) == first
    assert choose(route(weight), key.encode("utf-8", "surrogatepass")) == first


@given(st.binary())
def test_nought_and_a_hundred_are_exact(key: bytes) -> None:
    """Weight 0 answers nobody from the challenger, weight 100 everybody."""
    assert choose(route(0), key) == 1
    assert choose(route(100), key) == 2
    assert choose(Route("m", 1), key) == 1


@pytest.mark.parametrize("weight", [1, 5, 25, 50])
def test_split_has_the_weight_asked_for(weight: float) -> None:
    """Over many callers the share is the weight, up to chance."""
    chosen = sum(choose(route(weight), key) == 2 for key in KEYS)
    assert stats.binomtest(chosen, len(KEYS), weight / 100).pvalue > 1e-4


def test_another_rollout_draws_other_callers() -> None:
    """With another salt, half of the chosen half is chosen again: the draws are independent."""
    both = sum(choose(route(50, "a"), key) == 2 == choose(route(50, "b"), key) for key in KEYS)
    assert stats.binomtest(both, len(KEYS), 0.25).pvalue > 1e-4


def test_mirroring_is_drawn_apart_from_the_split() -> None:
    """Whether a request is mirrored does not depend on who answers it."""
    half = route(50, mirror_share=50)
    both = sum(choose(half, key) == 2 and mirrors(half, key) for key in KEYS)
    assert stats.binomtest(both, len(KEYS), 0.25).pvalue > 1e-4


@given(st.text())
def test_mirror_share_is_exact_at_its_ends(key: str) -> None:
    """Share 0 mirrors nothing, share 100 everything, and nothing without a challenger."""
    assert not mirrors(route(0, mirror_share=0), key)
    assert mirrors(route(0, mirror_share=100), key)
    assert not mirrors(Route("m", 1), key)


@pytest.mark.parametrize("bad", [-1.0, 100.1, float("nan")])
def test_weights_outside_the_scale_are_refused(bad: float) -> None:
    """A weight below 0, above 100 or not a number never becomes a route."""
    with pytest.raises(ValueError, match="between 0 and 100"):
        route(bad)


def test_table_is_a_snapshot() -> None:
    """A change makes a new table; the old one, and the mapping it came from, stay apart."""
    routes = {"m": route(5)}
    table = RoutingTable(routes)
    routes["other"] = route(5)
    changed = table.with_route(route(25))
    assert table.get("other") is None
    assert table.get("m") == route(5)
    assert changed.get("m") == route(25)
    with pytest.raises(TypeError):
        table.routes["m"] = route(1)  # type: ignore[index]
