"""What people read of rollouts: their state, verdicts, counts, samples, and feedback."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from gateway.errors import FeedbackInvalid, RolloutInvalid, RolloutNotFound, SampleNotFound
from gateway.registry.registry import Registry
from gateway.rollouts.control.judging import Observed, observe
from gateway.rollouts.live.answers import Answers, Judged, Recalled
from gateway.rollouts.live.recorder import TrafficRecorder
from gateway.rollouts.live.tally import Tally
from gateway.rollouts.state.rollout import Rollout
from gateway.rollouts.statistics.observations import Observations
from gateway.rollouts.statistics.verdict import Verdict
from gateway.store.feedback import FeedbackStore, Sees
from gateway.store.rollout_evidence import EvidenceStore, Sample
from gateway.store.rollout_tables import AccuracyRow, RolloutRow
from gateway.store.rollouts import RolloutStore


def _verdict(document: Mapping[str, Any]) -> Verdict | None:
    """Read a verdict; None if another release wrote it in a way that this one cannot read."""
    try:
        return Verdict.from_json(document)
    except ValidationError:
        return None


class RolloutReader:
    """Reads the rollouts of all models, and takes feedback."""

    def __init__(
        self,
        store: RolloutStore,
        evidence: EvidenceStore,
        feedback: FeedbackStore,
        registry: Registry,
        tally: Tally,
        answers: Answers,
        recorder: TrafficRecorder,
    ) -> None:
        self._recorder = recorder
        self._store = store
        self._evidence = evidence
        self._feedback = feedback
        self._registry = registry
        self._tally = tally
        self._answers = answers

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

    async def history(
        self, model: str | None = None, *, limit: int, before: str | None = None
    ) -> Sequence[RolloutRow]:
        """
        Read the rollouts of one model or all, the newest first; those after `before` in that order.

        Raises:
            ModelNotFound: No model has that name.
        """
        if model is not None:
            (await self._registry.refresh()).model(model)
        return await self._store.history(model, limit=limit, before=before)

    async def verdicts(
        self, rollout_id: str, *, limit: int, before: int | None = None
    ) -> list[Verdict]:
        """Read the newest verdicts before a number, the oldest of them first."""
        documents = await self._evidence.verdicts(rollout_id, limit=limit, before=before)
        return [each for document in documents if (each := _verdict(document)) is not None]

    async def observed(self, row: RolloutRow) -> Observed:
        """Add up what was counted in the current step; nothing of a state that cannot be read."""
        try:
            rollout = Rollout.from_json(row.state)
            return await observe(rollout, self._evidence, self._tally)
        except (ValidationError, RolloutInvalid):
            return Observed(Observations(), (), 0)

    async def samples(self, rollout_id: str, *, limit: int) -> Sequence[Sample]:
        """
        Read samples of requests that the two versions answered differently, the newest first.

        Raises:
            RolloutNotFound: There is none.
        """
        await self.read(rollout_id)
        await self._tally.flush()
        return await self._evidence.samples(rollout_id, limit=limit)

    async def sample_image(self, rollout_id: str, digest: str) -> bytes:
        """
        Read the image file of a sample.

        Raises:
            RolloutNotFound: There is none.
            SampleNotFound: It has no such sample, or the image was not kept.
        """
        await self.read(rollout_id)
        await self._tally.flush()
        image = await self._evidence.sample_image(rollout_id, digest)
        if image is None:
            raise SampleNotFound(
                f"Rollout {rollout_id} keeps no image {digest}; with KEEP_DISAGREEING_IMAGES=true "
                "the images of later samples are kept."
            )
        return image

    async def judge(
        self, request_id: str, category: int | str, *, sees: Sees = lambda _: True
    ) -> Judged:
        """
        Take feedback: the true class of an answered request, by number or by label. Answers of
        models that the caller does not see are not found.

        Raises:
            AnswerNotFound: No such request is remembered.
            FeedbackInvalid: No version of its model has that label.
            StoreUnavailable: The store is away.
        """

        def category_of(model: str, version: int) -> int:
            if isinstance(category, int):
                return category
            return self._class_named(category, model, version)

        judged = await self._answers.judge(request_id, category_of, sees=sees)
        if judged.counted:
            true_class = category_of(judged.model, judged.version)
            self._recorder.label(judged.model, request_id, true_class)
        return judged

    def _class_named(self, label: str, model: str, version: int) -> int:
        """
        Find a label's class in a version's numbering; -1 - its number in another version, if only
        that one knows it (as `class_map` writes it).
        """
        found = self._registry.catalog.models.get(model)
        versions = {} if found is None else found.versions
        own = versions[version].labels if version in versions else None
        if own is not None and label in own:
            return own.index(label)
        for number in sorted(versions, reverse=True):
            other = versions[number].labels
            if other is not None and label in other:
                return -1 - other.index(label)
        raise FeedbackInvalid(
            'A category is a number as `run` writes it, for example "07", or a label of the model.'
        )

    async def recall(self, request_id: str) -> Recalled | None:
        """Find an answer for another process of this gateway; see `Answers.recall`."""
        await self._tally.flush()
        return await self._answers.recall(request_id)

    async def accuracy(self, model: str) -> Sequence[AccuracyRow]:
        """
        Read the feedback on a model's versions.

        Raises:
            ModelNotFound: No model has that name.
        """
        (await self._registry.refresh()).model(model)
        return await self._feedback.accuracy(model)
