"""
The search: candidates as they come, and then with nodes left in float until one answers as the
model does. Pure but for the functions that it is given, which make and measure.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gateway.optimize.decision import Row
from gateway.optimize.recipes import Kind, Recipe, groups

Measure = Callable[[Recipe], Row | None]
"""Measures a candidate; None: the runtime cannot make or load it."""
Agreement = Callable[[Recipe], float]
"""The agreement of a candidate, 0 to 1; 0 if it cannot be made or loaded."""


@dataclass(frozen=True, slots=True)
class TriedRecipe:
    """A recipe and what was measured of it."""

    recipe: Recipe
    row: Row


def search(
    recipes: Sequence[Recipe],
    nodes: Sequence[str],
    *,
    measure: Measure,
    agreement: Agreement,
    least_agreement: float,
    least_speedup: float,
    most_models: int,
) -> list[TriedRecipe]:
    """
    Try recipes, and mend the most promising one where none of them agrees enough.

    Args:
        recipes: What is tried as it is.
        nodes: Names of the nodes that can be quantized, in the order of the graph.
        measure: Makes a candidate and measures all of it.
        agreement: Makes a candidate and tells its agreement alone, which is quick.
        least_agreement: What is enough, 0 to 1.
        least_speedup: A candidate that gains less is not mended.
        most_models: So many models may be made on top of the recipes.

    Returns:
        What was measured whole, in order.
    """
    found = [TriedRecipe(recipe, row) for recipe in recipes if (row := measure(recipe)) is not None]
    promising = [
        each
        for each in found
        if each.recipe.kind is not Kind.FP16 and each.row.speedup >= least_speedup
    ]
    if not promising or any(each.row.agreement >= least_agreement for each in promising):
        return found
    best = max(promising, key=lambda each: each.row.agreement)
    mended = _mend(best, nodes, agreement, least_agreement, most_models)
    if mended is not None and (row := measure(mended)) is not None:
        found.append(TriedRecipe(mended, row))
    return found


def _mend(
    candidate: TriedRecipe,
    nodes: Sequence[str],
    agreement: Agreement,
    least_agreement: float,
    most_models: int,
) -> Recipe | None:
    """Leave groups of nodes in float, those first whose absence helps most; None if none helps."""
    parts = groups(nodes)
    gains: list[tuple[float, frozenset[str]]] = []
    for part in parts[:most_models]:
        alone = replace(candidate.recipe, left_in_float=part)
        gains.append((agreement(alone), part))
    gains.sort(key=lambda gain: -gain[0])
    most_models -= len(gains)
    if not gains or gains[0][0] <= candidate.row.agreement:
        return None
    mended, reached = replace(candidate.recipe, left_in_float=gains[0][1]), gains[0][0]
    # Half of the nodes in float at most: beyond that little of the gain is left.
    for _, part in gains[1 : len(parts) // 2]:
        if reached >= least_agreement or most_models <= 0:
            break
        more = replace(mended, left_in_float=mended.left_in_float | part)
        most_models -= 1
        if (with_more := agreement(more)) > reached:
            mended, reached = more, with_more
    return mended
