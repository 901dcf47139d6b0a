"""The search for what may be computed in eight bits."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.optimize.decision import Row
from gateway.optimize.recipes import Kind, Recipe, first_recipes, groups, has_vnni
from gateway.optimize.search import search

_NODES = [f"n{index}" for index in range(16)]


class Machine:
    """Measures recipes whose truth is known: some nodes lose too much in eight bits."""

    def __init__(self, fragile: dict[str, float], speedup: float = 2.0) -> None:
        self.fragile = fragile
        self.speedup = speedup
        self.made = 0

    def agreement(self, recipe: Recipe) -> float:
        self.made += 1
        lost = sum(cost for node, cost in self.fragile.items() if node not in recipe.left_in_float)
        return max(0.0, 1.0 - lost)

    def measure(self, recipe: Recipe) -> Row:
        return Row(str(recipe), self.agreement(recipe), None, 1.0, self.speedup, 1)

    def search(self, most_models: int = 12) -> list[tuple[Recipe, float]]:
        found = search(
            [Recipe(Kind.U8S8)],
            _NODES,
            measure=self.measure,
            agreement=self.agreement,
            least_agreement=0.98,
            least_speedup=1.1,
            most_models=most_models,
        )
        return [(each.recipe, each.row.agreement) for each in found]


def test_nothing_is_left_in_float_where_all_agrees() -> None:
    """A recipe that agrees is taken as it is, and no other model is made."""
    machine = Machine({})
    assert machine.search() == [(Recipe(Kind.U8S8), 1.0)]
    assert machine.made == 1


def test_the_nodes_that_lose_too_much_stay_in_float() -> None:
    """The groups with the fragile nodes are found, and only those are left in float."""
    machine = Machine({"n0": 0.2, "n15": 0.1})
    (_, mended) = machine.search()
    assert mended[1] == 1.0
    assert mended[0].left_in_float == {"n0", "n1", "n14", "n15"}


def test_what_is_slower_is_not_mended() -> None:
    """A candidate without a gain is not worth a search."""
    assert len(Machine({"n0": 0.2}, speedup=1.0).search()) == 1


@given(
    fragile=st.dictionaries(st.sampled_from(_NODES), st.floats(0.0, 0.5), max_size=16),
    most_models=st.integers(0, 12),
)
def test_it_is_bounded_and_never_worse(fragile: dict[str, float], most_models: int) -> None:
    """No more models than allowed, half of the nodes in float at most, never less agreement."""
    machine = Machine(fragile)
    found = machine.search(most_models)
    assert machine.made <= most_models + len(found)
    for recipe, agreement in found[1:]:
        assert agreement > found[0][1]
        assert len(recipe.left_in_float) <= len(_NODES) / 2


@given(count=st.integers(0, 100))
def test_groups_are_all_nodes_in_order(count: int) -> None:
    """Neighbours together, each node once, sizes within one of each other."""
    nodes = [str(index) for index in range(count)]
    parts = groups(nodes)
    assert sorted(node for part in parts for node in part) == sorted(nodes)
    assert not parts or max(map(len, parts)) - min(map(len, parts)) <= 1


def test_weights_have_seven_bits_where_sums_overflow() -> None:
    """Without VNNI, U8S8 reduces the range of weights; with a GPU, float16 is tried first."""
    assert first_recipes(vnni=False, gpu=False)[0].reduce_range
    assert not first_recipes(vnni=True, gpu=False)[0].reduce_range
    assert first_recipes(vnni=True, gpu=True)[0].kind is Kind.FP16
    assert isinstance(has_vnni(), bool)
