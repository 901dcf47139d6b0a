"""
What people do with rollouts: create, promote, roll back, pause, resume, look.

Each command reads the stored state, asks the state machine what follows, and stores that if nobody
was faster; else it reads again. So of two promotions one wins and the other learns that it is too
late.
"""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from gateway.errors import (
    GatewayError,
    RolloutConflict,
    RolloutInvalid,
    RolloutNotFound,
    SampleNotFound,
)
from gateway.registry.lifecycle import Lifecycle
from gateway.registry.registry import Registry
from gateway.rollouts.control.controller import PROMOTE, ROLL_BACK, Controller
from gateway.rollouts.control.evaluations import Evaluations
from gateway.rollouts.live.recorder import Judged, Recorder
from gateway.rollouts.state.plan import Plan
from gateway.rollouts.state.rollout import (
    Rollout,
    Transition,
    begin,
    pause,
    promote,
    resume,
    roll_back,
)
from gateway.store.feedback import FeedbackStore
from gateway.store.rollout_tables import AccuracyRow, RolloutRow
from gateway.store.rollouts import RolloutStore, Sample

_ATTEMPTS = 10
_BLIND = (
    "Nothing measures the answers of this rollout: it has no shadow, no evaluation set has "
    "compared the versions, and the model has had no feedback. A version that answers wrongly "
    "would be promoted."
)


class Rollouts:
    """The rollouts of all models."""

    def __init__(
        self,
        store: RolloutStore,
        feedback: FeedbackStore,
        registry: Registry,
        lifecycle: Lifecycle,
        controller: Controller,
        recorder: Recorder,
        evaluations: Evaluations,
    ) -> None:
        self.evaluations = evaluations
        self._store = store
        self._feedback = feedback
        self._registry = registry
        self._lifecycle = lifecycle
        self._controller = controller
        self._recorder = recorder

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
        labelled = gate is not None or bool(await self._feedback.accuracy(name))
        rollout = replace(rollout, warnings=warnings_of(plan, labelled=labelled))
        for each in (champion.version, version):
            if each not in model.desired:
                await self._lifecycle.load(name, each, actor=actor)
        await self._store.create(
            rollout.to_json(),
            loaded_challenger=version not in model.desired,
            gate=gate,
            actor=actor,
        )
        await self._registry.refresh()
        return await self.read(rollout.id)

    async def read(self, rollout_id: str, *, model: str | None = None) -> RolloutRow:
        """
        Read one.

        Raises:
            RolloutNotFound: There is none, or it is another model's.
        """
        row = await self._store.read(rollout_id)
        if row is None or (model is not None and row.model != model):
            raise RolloutNotFound(rollout_id)
        return row

    async def history(self, model: str | None = None, *, limit: int) -> Sequence[RolloutRow]:
        """
        Read the rollouts of one model or all, the newest first.

        Raises:
            ModelNotFound: No model has that name.
        """
        if model is not None:
            (await self._registry.refresh()).model(model)
        return await self._store.history(model, limit=limit)

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
            rollout_id,
            lambda rollout: resume(rollout, time.time()),
            model=model,
            action="rollout_resume",
            actor=actor,
        )

    async def verdicts(self, rollout_id: str, *, limit: int) -> list[dict[str, Any]]:
        """Read the newest verdicts, the oldest of them first."""
        return await self._store.verdicts(rollout_id, limit=limit)

    async def observed(self, row: RolloutRow) -> tuple[dict[str, Any], int]:
        """Add up what was counted in the current step, and tell how many copies were dropped."""
        rollout = Rollout.from_json(row.state)
        observed = await self._controller.observe(rollout)
        rows = await self._store.observations(rollout.id, rollout.stage, rollout.step)
        return observed.to_json(), sum(dropped for _, dropped in rows)

    async def samples(self, rollout_id: str, *, limit: int) -> Sequence[Sample]:
        """
        Read samples of requests that the two versions answered differently, the newest first.

        Raises:
            RolloutNotFound: There is none.
        """
        await self.read(rollout_id)
        await self._recorder.flush()
        return await self._store.samples(rollout_id, limit=limit)

    async def sample_image(self, rollout_id: str, digest: str) -> bytes:
        """
        Read the image file of a sample.

        Raises:
            RolloutNotFound: There is none.
            SampleNotFound: It has no such sample, or the image was not kept.
        """
        await self.read(rollout_id)
        await self._recorder.flush()
        image = await self._store.sample_image(rollout_id, digest)
        if image is None:
            raise SampleNotFound(
                f"Rollout {rollout_id} keeps no image {digest}; with KEEP_DISAGREEING_IMAGES=true "
                "the images of later samples are kept."
            )
        return image

    async def judge(
        self, request_id: str, category: int, *, sees: Callable[[str], bool] = lambda _: True
    ) -> Judged:
        """Take feedback; see `Recorder.judge`."""
        return await self._recorder.judge(request_id, category, sees=sees)

    async def recall(self, request_id: str) -> tuple[str, int, int] | None:
        """Find an answer for another process of this gateway; see `Recorder.recall`."""
        return await self._recorder.recall(request_id)

    async def accuracy(self, model: str) -> Sequence[AccuracyRow]:
        """
        Read the feedback on a model's versions.

        Raises:
            ModelNotFound: No model has that name.
        """
        (await self._registry.refresh()).model(model)
        return await self._feedback.accuracy(model)

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
            done = await self._controller.apply(rollout, transition, action=action, actor=actor)
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
