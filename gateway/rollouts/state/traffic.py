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

import structlog
from pydantic import ValidationError

from gateway.errors import RolloutInvalid
from gateway.registry.versions import CHAMPION, Catalog
from gateway.rollouts.state.classes import ClassMap, class_map
from gateway.rollouts.state.rollout import Rollout, SetRoute, actions_for
from gateway.rollouts.state.routing import RoutingTable, choose, mirrors

log = structlog.get_logger(__name__)


class StepId(NamedTuple):
    """One step of one rollout: what observations are counted by."""

    rollout: str
    stage: int
    step: int


@dataclass(frozen=True, slots=True)
class Assignment:
    """
    What a rollout asks of one request.

    Attributes:
        id: The step that the request counts for.
        model: The model.
        champion, challenger: Its two versions.
        version: Which of the two answers the caller.
        shadow: The step mirrors requests; only mirrored ones count.
        mirrored: This one is to be mirrored.
        caller: Names who asks, if the caller does.
        classes: The champion's number for each class of the challenger; see `classes.class_map`.
    """

    id: StepId
    model: str
    champion: int
    challenger: int
    version: int
    shadow: bool
    mirrored: bool
    caller: str | None = None
    classes: ClassMap | None = None


@dataclass(frozen=True, slots=True)
class Traffic:
    """
    All routes at one instant, by model.

    Attributes:
        table: The routes.
        steps: The step that each belongs to.
        classes: How the challenger's classes translate, where labels differ.
        labelled: The models on which feedback is expected.
    """

    table: RoutingTable = field(default_factory=RoutingTable)
    steps: Mapping[str, StepId] = field(default_factory=lambda: MappingProxyType({}))
    classes: Mapping[str, ClassMap] = field(default_factory=lambda: MappingProxyType({}))
    labelled: frozenset[str] = frozenset()

    def assign(
        self, model: str, champion: int, *, caller: str | None, draw: str
    ) -> Assignment | None:
        """
        Tell which version is to answer.

        Args:
            model: The model's name.
            champion: The version that answers without a rollout.
            caller: Who asks, if the caller names itself: it stays on its side.
            draw: This request's own lot: what splits requests of no caller, and what mirrors.

        Returns:
            None without a rollout of this champion.
        """
        route = self.table.get(model)
        if route is None or route.champion != champion or route.challenger is None:
            return None
        shadow = route.mirror_share > 0
        return Assignment(
            id=self.steps[model],
            model=model,
            champion=champion,
            challenger=route.challenger,
            version=choose(route, draw if caller is None else caller),
            shadow=shadow,
            mirrored=shadow and mirrors(route, draw),
            caller=caller,
            classes=self.classes.get(model),
        )

    def weight(self, model: str) -> float:
        """The challenger's share of a model's requests, 0 to 100."""
        route = self.table.get(model)
        return 0.0 if route is None else route.weight

    def tells_apart(self, model: str, category: int, *, by_challenger: bool) -> bool:
        """
        Whether only one of a rollout's versions knows a class; its number is the challenger's if it
        answered, else the champion's.
        """
        classes = self.classes.get(model)
        if classes is None:
            return False
        if by_challenger:
            return not 0 <= category < len(classes) or classes[category] < 0
        return category not in classes or category < 0


def traffic_of(catalog: Catalog) -> Traffic:
    """Make the snapshot that belongs to a catalog. A rollout that cannot be read routes nothing."""
    table, steps, classes, labelled = RoutingTable(), {}, {}, set()
    for name, state in catalog.rollouts.items():
        model = catalog.models[name]
        try:
            rollout = Rollout.from_json(state)
        except (ValidationError, RolloutInvalid) as error:
            log.warning("rollout_unreadable", model=name, reason=str(error))
            continue
        if model.aliases.get(CHAMPION) != rollout.champion:
            continue
        for action in actions_for(rollout):
            if isinstance(action, SetRoute):
                table = table.with_route(action.route)
                steps[name] = StepId(rollout.id, rollout.stage, rollout.step)
        one, other = (model.versions.get(each) for each in (rollout.champion, rollout.challenger))
        if one is not None and other is not None:
            sizes = one.classes, other.classes
            if (found := class_map(one.labels, other.labels, sizes=sizes)) is not None:
                classes[name] = found
        if rollout.labelled or rollout.plan.labels is not None:
            labelled.add(name)
    return Traffic(table, MappingProxyType(steps), MappingProxyType(classes), frozenset(labelled))
