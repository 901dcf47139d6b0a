"""
Classes by name: what a class of one version is called in another.

A retrained model may have one class more, or the same classes in another order. Where both versions
have labels, answers are compared by label and not by number. What only one of them knows is told
apart, with labels and without.
"""

from collections.abc import Sequence

ClassMap = tuple[int, ...]
"""For each class of the challenger the champion's number; -1 - its own where it has none there."""


def class_map(
    champion: Sequence[str] | None,
    challenger: Sequence[str] | None,
    *,
    sizes: tuple[int | None, int | None] = (None, None),
) -> ClassMap | None:
    """
    Translate the challenger's classes.

    Args:
        champion, challenger: The labels of each version, if it has some.
        sizes: How many classes each has. Without labels the same number means the same class, and
            only the larger version knows those beyond.

    Returns:
        None where the numbers mean the same, as far as is known.
    """
    if champion is None or challenger is None:
        return _by_number(*sizes)
    if tuple(champion) == tuple(challenger):
        return None
    places = {label: place for place, label in enumerate(champion)}
    if len(places) < len(champion) or len(set(challenger)) < len(challenger):
        # A label that names two classes translates nothing.
        return _by_number(*sizes)
    return tuple(places.get(label, -1 - place) for place, label in enumerate(challenger))


def _by_number(champion: int | None, challenger: int | None) -> ClassMap | None:
    if champion is None or challenger is None or champion == challenger:
        return None
    return tuple(place if place < champion else -1 - place for place in range(challenger))


def translated(category: int, classes: ClassMap | None) -> int:
    """Give the champion's number of a class; negative if only the challenger has the class."""
    if classes is None or not 0 <= category < len(classes):
        return category
    return classes[category]
