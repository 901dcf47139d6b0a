"""
What rollouts do to requests that pin nothing: an immutable snapshot, made anew with every catalog.

The catalog carries the state of each live rollout, read in one transaction with the aliases, and
the snapshot is swapped in the same step of the event loop as the catalog. So a request sees an
alias and a weight that belong together. A route whose champion is not what the alias names
(somebody moved it by hand) is not followed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from gateway.registry.versions import CHAMPION, Catalog
from gateway.rollouts.state.rollout import Rollout, SetRoute, actions_for
from gateway.rollouts.state.routing import RoutingTable, choose, mirrors


class StepId(NamedTuple):
    """One step of one rollout: what observations are counted by."""

    rollout: str
    stage: int
    step: int


@dataclass(frozen=True, slots=True)
class Trial:
    """
    What a rollout asks of one request.

    Attributes:
        id: The step that the request counts for.
        model: The model.
        champion, challenger: Its two versions.
        version: Which of the two answers the caller.
        shadow: The step mirrors requests; only mirrored ones count.
        mirrored: This one is to be mirrored.
    """

    id: StepId
    model: str
    champion: int
    challenger: int
    version: int
    shadow: bool
    mirrored: bool


@dataclass(frozen=True, slots=True)
class Traffic:
    """All routes at one instant, and the step that each belongs to."""

    table: RoutingTable = field(default_factory=RoutingTable)
    steps: Mapping[str, StepId] = field(default_factory=lambda: MappingProxyType({}))

    def trial(self, model: str, champion: int, *, key: str, request_id: str) -> Trial | None:
        """
        Tell which version is to answer.

        Args:
            model: The model's name.
            champion: The version that answers without a rollout.
            key: Who calls; the same key stays on its side.
            request_id: Names the request: mirroring draws by it.

        Returns:
            None without a rollout of this champion.
        """
        route = self.table.get(model)
        if route is None or route.champion != champion or route.challenger is None:
            return None
        shadow = route.mirror_share > 0
        return Trial(
            id=self.steps[model],
            model=model,
            champion=champion,
            challenger=route.challenger,
            version=choose(route, key),
            shadow=shadow,
            mirrored=shadow and mirrors(route, request_id),
        )


def traffic_of(catalog: Catalog) -> Traffic:
    """Make the snapshot that belongs to a catalog."""
    table, steps = RoutingTable(), {}
    for name, state in catalog.rollouts.items():
        rollout = Rollout.from_json(state)
        if catalog.models[name].aliases.get(CHAMPION) != rollout.champion:
            continue
        for action in actions_for(rollout):
            if isinstance(action, SetRoute):
                table = table.with_route(action.route)
                steps[name] = StepId(rollout.id, rollout.stage, rollout.step)
    return Traffic(table, MappingProxyType(steps))
