"""
What people do with rollouts: create, promote, roll back, pause, resume, skip a step.

Each command reads the stored state, asks the state machine what follows, and stores that if nobody
was faster; else it reads again. So of two promotions one wins and the other learns that it is too
late.
"""

import time
import uuid
from collections.abc import Callable
from dataclasses import replace

from gateway.errors import GatewayError, RolloutConflict, RolloutInvalid
from gateway.registry.lifecycle import Lifecycle
from gateway.registry.registry import Registry
from gateway.rollouts.control.applying import PROMOTE, ROLL_BACK, STEP, Changes
from gateway.rollouts.control.evaluations import Evaluations
from gateway.rollouts.control.reading import RolloutReader
from gateway.rollouts.control.replays import Replays
from gateway.rollouts.live.answers import Answers
from gateway.rollouts.live.recorder import TrafficRecorder
from gateway.rollouts.live.tally import Tally
from gateway.rollouts.state.plan import Plan
from gateway.rollouts.state.rollout import Rollout
from gateway.rollouts.state.transitions import (
    Transition,
    begin,
    pause,
    promote,
    resume,
    roll_back,
    skip_step,
)
from gateway.store.feedback import FeedbackStore
from gateway.store.rollout_evidence import EvidenceStore
from gateway.store.rollout_tables import RolloutRow
from gateway.store.rollouts import RolloutStore

_ATTEMPTS = 10
_BLIND = (
    "Nothing measures the answers of this rollout: it has no shadow, no evaluation set has "
    "compared the versions, and the model has had no feedback. A version that answers wrongly "
    "would be promoted."
)


class Rollouts(RolloutReader):
    """The rollouts of all models."""

    def __init__(
        self,
        store: RolloutStore,
        evidence: EvidenceStore,
        feedback: FeedbackStore,
        registry: Registry,
        lifecycle: Lifecycle,
        changes: Changes,
        tally: Tally,
        answers: Answers,
        recorder: TrafficRecorder,
        evaluations: Evaluations,
        replays: Replays,
        *,
        feedback_window_s: float,
    ) -> None:
        super().__init__(store, evidence, feedback, registry, tally, answers, recorder)
        self.evaluations = evaluations
        self.replays = replays
        self._lifecycle = lifecycle
        self._changes = changes
        self._feedback_window_s = feedback_window_s

    async def create(
        self, name: str, version: int, plan: Plan, *, gated: bool, actor: str
    ) -> RolloutRow:
        """
        Begin a rollout: the challenger is loaded, and only then gets traffic.

        Args:
            name: The model.
            version: The challenger.
            plan: What is to be done.
            gated: Ask the model's evaluation set, if it has one.
            actor: Who does it.

        Raises:
            ModelNotFound, VersionNotFound: There is no such thing.
            EvaluationPending, EvaluationFailed: The evaluation set does not let it begin.
            RolloutInvalid: The version is the champion already.
            RolloutInProgress: The model has a rollout that has not ended.
            LoadFailed, SignatureConflict, ArtifactCorrupt: The version cannot be loaded.
        """
        model = (await self._registry.refresh()).model(name)
        champion = model.champion
        model.version(version)
        rollout, _ = begin(
            rollout_id=uuid.uuid4().hex[:12],
            model=name,
            champion=champion.version,
            challenger=version,
            plan=plan,
            now=time.time(),
        )
        gate = None
        if gated:
            gate = await self.evaluations.gate(name, champion.version, version, plan)
        labelled = name in await self._feedback.models_with_feedback(
            within_s=self._feedback_window_s
        )
        rollout = replace(
            rollout,
            labelled=labelled,
            warnings=warnings_of(plan, labelled=gate is not None or labelled),
        )
        for each in (champion.version, version):
            if each not in model.desired:
                await self._lifecycle.load(name, each, actor=actor)
        await self._store.create(
            rollout.to_json(),
            loaded_challenger=version not in model.desired,
            gate=None if gate is None else gate.to_json(),
            actor=actor,
        )
        await self._registry.refresh()
        return await self.read(rollout.id)

    async def promote(self, rollout_id: str, *, model: str | None = None, actor: str) -> RolloutRow:
        """
        Promote by a human's word.

        Raises:
            RolloutNotFound: There is none.
            RolloutConflict: It is being promoted already, or has ended.
        """
        return await self._command(
            rollout_id,
            lambda rollout: promote(rollout, f"Promoted by {actor}."),
            model=model,
            action=PROMOTE,
            actor=actor,
        )

    async def roll_back(
        self, rollout_id: str, *, model: str | None = None, reason: str, actor: str
    ) -> RolloutRow:
        """
        Give all traffic to the champion, at once.

        Raises:
            RolloutNotFound: There is none.
            RolloutConflict: It is being promoted, or has been.
        """
        return await self._command(
            rollout_id,
            lambda rollout: roll_back(rollout, time.time(), reason),
            model=model,
            action=ROLL_BACK,
            actor=actor,
        )

    async def skip_step(
        self, rollout_id: str, *, model: str | None = None, actor: str
    ) -> RolloutRow:
        """
        Go to the next step by a human's word.

        Raises:
            RolloutNotFound: There is none.
            RolloutConflict: It is in its last step, is being promoted, or has ended.
        """
        return await self._command(
            rollout_id,
            lambda rollout: skip_step(rollout, time.time(), f"Step skipped by {actor}."),
            model=model,
            action=STEP,
            actor=actor,
        )

    async def pause(self, rollout_id: str, *, model: str | None = None, actor: str) -> RolloutRow:
        """
        Hold the current step; it is still judged, and still rolled back if it fails.

        Raises:
            RolloutNotFound: There is none.
            RolloutConflict: It is being promoted, or has ended.
        """
        return await self._command(
            rollout_id, pause, model=model, action="rollout_pause", actor=actor
        )

    async def resume(self, rollout_id: str, *, model: str | None = None, actor: str) -> RolloutRow:
        """
        Go on after a pause or a wait.

        Raises:
            RolloutNotFound: There is none.
            RolloutConflict: It is being promoted, or has ended.
        """
        return await self._command(
            rollout_id, resume, model=model, action="rollout_resume", actor=actor
        )

    async def _command(
        self,
        rollout_id: str,
        decide: Callable[[Rollout], Transition],
        *,
        model: str | None,
        action: str,
        actor: str,
    ) -> RolloutRow:
        for _ in range(_ATTEMPTS):
            row = await self.read(rollout_id, model=model)
            rollout = Rollout.from_json(row.state)
            try:
                transition = decide(rollout)
            except RolloutConflict as error:
                details = {"reason": error.detail}
                await self._store.note(
                    rollout_id, row.model, action=f"{action}_refused", details=details, actor=actor
                )
                raise
            done = await self._changes.apply(rollout, transition, action=action, actor=actor)
            if done is not None:
                return await self.read(rollout_id)
        raise RolloutConflict(f"Rollout {rollout_id} changes too fast; try again.")


def warnings_of(plan: Plan, *, labelled: bool) -> tuple[str, ...]:
    """
    Tell what nobody should begin a plan without knowing.

    Args:
        plan: What is to be done.
        labelled: An evaluation set has compared the versions, or the model gets feedback.
    """
    if labelled or plan.compares_answers:
        return ()
    return (_BLIND,)


def plan_or_invalid(make: Callable[[], Plan]) -> Plan:
    """
    Make a plan of what a caller sent.

    Raises:
        RolloutInvalid: It makes no sense.
    """
    try:
        return make()
    except GatewayError:
        raise
    except ValueError as error:
        raise RolloutInvalid(str(error)) from error
