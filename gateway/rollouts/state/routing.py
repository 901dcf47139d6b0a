"""
Which version answers a caller: a pure choice over an immutable snapshot.

A caller's key (a header, its API key, else the request id) is hashed with the rollout's salt to a
point on a line; the challenger owns the line's beginning, as long as its weight. So a caller stays
on its side, raising the weight moves callers only from champion to challenger, and another rollout
draws other callers. Hot path: no locks, nothing shared that changes.

Source: the split is that of consistent bucketing in feature flags; Flagger's sticky sessions need a
cookie for the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from types import MappingProxyType
from typing import Self

_LINE = 1 << 64


@dataclass(frozen=True, slots=True)
class Route:
    """
    How one model's unpinned traffic goes.

    Attributes:
        model: Its name.
        champion: Version that answers by default.
        challenger: Version that a rollout tries; None without one.
        weight: Share of callers that the challenger answers, 0 to 100.
        mirror_share: Share of requests copied to the challenger, 0 to 100.
        salt: The rollout's own; any text.
    """

    model: str
    champion: int
    challenger: int | None = None
    weight: float = 0.0
    mirror_share: float = 0.0
    salt: str = ""

    def __post_init__(self) -> None:
        for share in (self.weight, self.mirror_share):
            if not 0 <= share <= 100:
                raise ValueError(f"A weight lies between 0 and 100; {share} does not.")
        if self.challenger is None and (self.weight or self.mirror_share):
            raise ValueError("Without a challenger there is no weight.")


def choose(route: Route, key: str | bytes) -> int:
    """
    The version that answers this caller.

    Args:
        route: The model's.
        key: Who calls; the same key gets the same side as long as the weight allows.

    Returns:
        The champion's version or the challenger's.
    """
    if route.challenger is None or not route.weight:
        return route.champion
    return route.challenger if _draws(route.weight, route.salt, "split", key) else route.champion


def mirrors(route: Route, key: str | bytes) -> bool:
    """
    Whether to copy a request to the challenger. `key` names the request, not the caller: a mirrored
    share should be a sample of all requests.
    """
    if route.challenger is None or not route.mirror_share:
        return False
    return _draws(route.mirror_share, route.salt, "mirror", key)


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """All routes at one instant. A change makes a new table, and the holder swaps one reference."""

    routes: Mapping[str, Route] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "routes", MappingProxyType(dict(self.routes)))

    def get(self, model: str) -> Route | None:
        """The model's route; None if it has none."""
        return self.routes.get(model)

    def with_route(self, route: Route) -> Self:
        """The same table with one route put in place."""
        return type(self)({**self.routes, route.model: route})


def _draws(share: float, salt: str, purpose: str, key: str | bytes) -> bool:
    encoded = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
    digest = blake2b(digest_size=8, person=purpose.encode())
    digest.update(f"{len(salt)}:{salt}".encode())
    digest.update(encoded)
    return int.from_bytes(digest.digest()) < int(share / 100 * _LINE)
