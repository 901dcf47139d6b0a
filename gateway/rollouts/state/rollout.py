"""
A rollout: one attempt to replace a champion. Its state, and what the state asks for.

How it changes: `transitions`. What a state asks for follows from the state alone (`actions_for`),
so that after a crash it is done again without harm.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gateway.rollouts.state.plan import Plan, Stage
from gateway.rollouts.state.routing import Route
from gateway.rollouts.statistics.metrics import Strategy
from gateway.rollouts.statistics.verdict import Verdict
from gateway.rollouts.stored import Stored


class Phase(StrEnum):
    """Where a rollout stands. Succeeded and Failed are final."""

    PROGRESSING = "Progressing"
    WAITING = "Waiting"
    PROMOTING = "Promoting"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


JUDGED = frozenset({Phase.PROGRESSING, Phase.WAITING})


class WaitsFor(StrEnum):
    """
    What a Waiting rollout waits for. It goes on by itself when the evidence decides, or when the
    analysis works again; an approval is a human's.
    """

    EVIDENCE = "evidence"
    ANALYSIS = "analysis"
    APPROVAL = "approval"


@dataclass(frozen=True, slots=True)
class Rollout(Stored):
    """
    The state. Times that end in `at_s` are Unix seconds and are for people: nothing is decided by
    them, so a clock that is wrong, or set, does no harm. `age_s` and `waited_s` are added up from
    what a steady clock measured between checks.

    Attributes:
        id: Its own; salts the split.
        model: The model's name.
        champion: Version that had the traffic when it began.
        challenger: Version that it tries.
        plan: What was asked for.
        phase: Where it stands.
        waits_for: What it waits for while it is Waiting; None otherwise.
        paused: A human holds it; it is still judged and can still fail.
        stage: Position of the current stage.
        step: Position of the current step among the stage's judged steps.
        checks: How many times it was checked, over all steps.
        failed_checks: Those that failed.
        provider_errors: Failures of the analysis itself, over all steps.
        consecutive_provider_errors: Those since the last verdict.
        created_at_s: When it began.
        step_started_at_s: When the current step began.
        age_s: How long the current step has lasted, in seconds.
        waited_s: How much of its deadline the step has used up, in seconds.
        checked_at_s: Time of the last check.
        finished_at_s: When it became Succeeded or Failed.
        reason: Why it is in its phase, for people.
        verdicts: The last twenty.
        warnings: What everybody who looks at it should know, for people.
        labelled: The model gets feedback, so that accuracy is required.
        accuracy_shown: A check has shown that its accuracy is not worse than tolerated.
        revision: Grows with every change; for compare-and-swap.
    """

    id: str
    model: str
    champion: int
    challenger: int
    plan: Plan
    created_at_s: float
    step_started_at_s: float
    phase: Phase = Phase.PROGRESSING
    waits_for: WaitsFor | None = None
    paused: bool = False
    stage: int = 0
    step: int = 0
    checks: int = 0
    failed_checks: int = 0
    provider_errors: int = 0
    consecutive_provider_errors: int = 0
    age_s: float = 0.0
    waited_s: float = 0.0
    checked_at_s: float | None = None
    finished_at_s: float | None = None
    reason: str = "Begun."
    verdicts: tuple[Verdict, ...] = ()
    warnings: tuple[str, ...] = ()
    labelled: bool = False
    accuracy_shown: bool = False
    revision: int = 0

    @property
    def live(self) -> bool:
        """Not finished."""
        return self.phase not in {Phase.SUCCEEDED, Phase.FAILED}

    @property
    def current_stage(self) -> Stage:
        """The stage it is in, or ended in."""
        return self.plan.stages[self.stage]

    @property
    def weight(self) -> float:
        """Share of requests that the challenger answers, 0 to 100."""
        if self.phase is Phase.SUCCEEDED:
            return 100.0
        if self.phase is Phase.FAILED or self.current_stage.strategy is Strategy.SHADOW:
            return 0.0
        return self.current_stage.judged_steps[self.step]

    @property
    def mirror_share(self) -> float:
        """Share of requests copied to the challenger, 0 to 100."""
        if not self.live or self.current_stage.strategy is not Strategy.SHADOW:
            return 0.0
        return self.current_stage.judged_steps[self.step]

    @property
    def deadline_at_s(self) -> float:
        """When the current step begins to wait if it stays undecided, Unix seconds."""
        seen_at_s = self.step_started_at_s if self.checked_at_s is None else self.checked_at_s
        return max(seen_at_s, self.step_started_at_s) + self.plan.deadline_s - self.waited_s

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types, with `weight` and `mirror_share` for readers."""
        return Stored.to_json(self) | {"weight": self.weight, "mirror_share": self.mirror_share}


@dataclass(frozen=True, slots=True)
class SetRoute:
    """Traffic goes like this from now on."""

    route: Route


@dataclass(frozen=True, slots=True)
class MoveAlias:
    """Move the champion's alias if it still points to `expected`; then `promoted` or `refused`."""

    model: str
    expected: int
    version: int


Action = SetRoute | MoveAlias


def actions_for(rollout: Rollout) -> tuple[Action, ...]:
    """What the state asks for. Doing it twice does no harm; do it after every start."""
    if rollout.phase is Phase.SUCCEEDED:
        return (SetRoute(Route(rollout.model, rollout.challenger)),)
    if rollout.phase is Phase.FAILED:
        return (SetRoute(Route(rollout.model, rollout.champion)),)
    route = Route(
        model=rollout.model,
        champion=rollout.champion,
        challenger=rollout.challenger,
        weight=rollout.weight,
        mirror_share=rollout.mirror_share,
        salt=rollout.id,
    )
    if rollout.phase is Phase.PROMOTING:
        return SetRoute(route), MoveAlias(rollout.model, rollout.champion, rollout.challenger)
    return (SetRoute(route),)
