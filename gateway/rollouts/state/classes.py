"""
Classes by name: what a class of one version is called in another.

A retrained model may have one class more, or the same classes in another order. Where both versions
have labels, answers are compared by label and not by number.
"""

from collections.abc import Sequence

ClassMap = tuple[int, ...]
"""For each class of the challenger the champion's number; -1 - its own where it has none there."""


def class_map(champion: Sequence[str] | None, challenger: Sequence[str] | None) -> ClassMap | None:
    """
    Translate the challenger's classes.

    Returns:
        None where the numbers mean the same, as far as is known: equal labels, or none, or labels
        that name a class twice.
    """
    if champion is None or challenger is None or tuple(champion) == tuple(challenger):
        return None
    places = {label: place for place, label in enumerate(champion)}
    if len(places) < len(champion) or len(set(challenger)) < len(challenger):
        return None
    return tuple(places.get(label, -1 - place) for place, label in enumerate(challenger))


def translated(category: int, classes: ClassMap | None) -> int:
    """Give the champion's number of a class; negative if only the challenger has the class."""
    if classes is None or not 0 <= category < len(classes):
        return category
    return classes[category]
