"""
Remember what was answered and observed, and take it to the store in batches.

Counts of a step are kept from the start of this process and stored whole, in place of what was
stored before: storing twice does no harm, and a process that is killed loses at most what came
since the last flush. A process that starts again counts under another name, and the counts of all
names are added up.

Answers of a rollout go to the store, so that feedback finds them hours later, at any gateway and
after a restart. Other answers are remembered in memory, the newest `REMEMBERED` of them.
"""

import asyncio
import time
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import structlog

from gateway.errors import AnswerNotFound, StoreUnavailable
from gateway.rollouts.live.counting import StepCounts
from gateway.rollouts.state.traffic import StepId, Trial
from gateway.store.feedback import Answered, FeedbackStore
from gateway.store.outage import StoreOutage
from gateway.store.rollouts import RolloutStore

log = structlog.get_logger(__name__)

REMEMBERED = 16_384
SAMPLES_PER_ROLLOUT = 200
# Answers that wait for the store; while it is away the oldest are given up.
_ANSWERS_KEPT = 50_000


@dataclass(frozen=True, slots=True)
class Judged:
    """What feedback was about."""

    model: str
    version: int
    right: bool
    counted: bool


class Recorder:
    """Counts, answers and samples of this gateway."""

    def __init__(
        self,
        store: RolloutStore,
        feedback: FeedbackStore,
        *,
        elsewhere: Callable[[str], Awaitable[tuple[str, int, int] | None]] | None = None,
    ) -> None:
        """
        Args:
            store, feedback: Where counts and answers go.
            elsewhere: Finds the answer to a request that another process of this gateway gave.
        """
        self._elsewhere = elsewhere
        self.gateway = uuid.uuid4().hex
        self._store = store
        self._feedback = feedback
        self._counts: dict[StepId, StepCounts] = {}
        self._dirty: set[StepId] = set()
        self._answers: OrderedDict[str, Answered] = OrderedDict()
        self._recent: OrderedDict[str, tuple[str, int, int]] = OrderedDict()
        self._samples: list[dict[str, Any]] = []
        self._sampled: dict[str, int] = {}
        self._flushing = asyncio.Lock()

    def counts(self, step: StepId) -> StepCounts:
        """Return a step's counts, to be added to right now."""
        self._dirty.add(step)
        found = self._counts.get(step)
        if found is None:
            found = self._counts[step] = StepCounts()
        return found

    def remember(self, request_id: str, model: str, version: int, category: int) -> None:
        """Remember an answer outside of rollouts."""
        self._recent[request_id] = (model, version, category)
        if len(self._recent) > REMEMBERED:
            self._recent.popitem(last=False)

    def remember_trial(
        self, trial: Trial, request_id: str, category: int, challenger_category: int | None = None
    ) -> None:
        """Remember an answer of a rollout; in shadow, what the challenger said to it, too."""
        self._answers[request_id] = Answered(
            request_id=request_id,
            rollout=trial.id.rollout,
            stage=trial.id.stage,
            step=trial.id.step,
            model=trial.model,
            version=trial.version,
            category=category,
            challenger_category=challenger_category,
            at_s=time.time(),
        )
        if len(self._answers) > _ANSWERS_KEPT:
            self._answers.popitem(last=False)

    def wants_sample(self, rollout: str) -> bool:
        """Whether another sample of a disagreement is to be kept."""
        return self._sampled.get(rollout, 0) < SAMPLES_PER_ROLLOUT

    def sample(self, sample: dict[str, Any]) -> None:
        """Keep one request that two versions answered differently."""
        rollout = sample["rollout"]
        self._sampled[rollout] = self._sampled.get(rollout, 0) + 1
        self._samples.append(sample)

    async def judge(
        self, request_id: str, category: int, *, sees: Callable[[str], bool] = lambda _: True
    ) -> Judged:
        """
        Take the true class of an answered request into account, once.

        Args:
            request_id: Of the request.
            category: The true class.
            sees: Whether a model exists for the caller; answers of others are not found.

        Raises:
            AnswerNotFound: No such request is remembered.
            StoreUnavailable: The store is away.
        """
        if (recent := self._recent.get(request_id)) is not None:
            return await self._judge_recent(request_id, recent, category, sees)
        claimed = await self._feedback.claim(request_id, category, sees)
        if claimed is None:
            # It may be among the answers of the last second, which are not stored yet.
            await self.flush()
            claimed = await self._feedback.claim(request_id, category, sees)
        if claimed is None and self._elsewhere is not None:
            recent = await self._elsewhere(request_id)
            if recent is not None:
                self._recent[request_id] = recent
                return await self._judge_recent(request_id, recent, category, sees)
            # Whoever answered it has stored it by now.
            claimed = await self._feedback.claim(request_id, category, sees)
        if claimed is None:
            raise _unknown(request_id)
        answered, first = claimed
        if first:
            self._judge_trial(answered, category)
        right = answered.category == category
        return Judged(answered.model, answered.version, right=right, counted=first)

    async def _judge_recent(
        self,
        request_id: str,
        recent: tuple[str, int, int],
        category: int,
        sees: Callable[[str], bool],
    ) -> Judged:
        model, version, answer = recent
        if not sees(model):
            raise _unknown(request_id)
        self._recent.pop(request_id, None)
        try:
            await self._feedback.add(model, version, wrong=answer != category)
        except StoreUnavailable:
            self._recent[request_id] = recent  # so that it can be told again
            raise
        return Judged(model, version, right=answer == category, counted=True)

    async def recall(self, request_id: str) -> tuple[str, int, int] | None:
        """Give an answer outside of rollouts (model, version, category) away; store the others."""
        await self.flush()
        return self._recent.pop(request_id, None)

    def _judge_trial(self, answered: Answered, category: int) -> None:
        counts = self.counts(StepId(answered.rollout, answered.stage, answered.step))
        right = answered.category == category
        if answered.challenger_category is not None:
            counts.judged_pair(
                champion_right=right, challenger_right=answered.challenger_category == category
            )
        elif answered.by_challenger:
            counts.challenger.judged(right=right)
        else:
            counts.champion.judged(right=right)

    async def flush(self) -> None:
        """
        Store what is new.

        Raises:
            StoreUnavailable: The store is away; nothing is lost, the next flush stores it.
        """
        async with self._flushing:
            await self._flush_answers()
            await self._flush_counts()

    async def _flush_answers(self) -> None:
        if not self._answers:
            return
        answers, self._answers = self._answers, OrderedDict()
        try:
            await self._feedback.put_answers(answers.values())
        except StoreUnavailable:
            self._answers = OrderedDict({**answers, **self._answers})
            raise

    async def _flush_counts(self) -> None:
        if not self._dirty and not self._samples:
            return
        dirty, self._dirty = self._dirty, set()
        samples, self._samples = self._samples, []
        documents = {
            (step.rollout, step.stage, step.step): (
                self._counts[step].freeze().to_json(),
                self._counts[step].dropped,
            )
            for step in dirty
            if step in self._counts
        }
        try:
            await self._store.put_observations(self.gateway, documents, samples)
        except StoreUnavailable:
            self._dirty |= dirty
            self._samples = samples + self._samples
            raise

    async def follow(self, every_s: float) -> None:
        """Flush for ever; at the end once more."""
        outage = StoreOutage("observations_wait_for_the_store", "observations_stored_again")
        try:
            while True:
                await asyncio.sleep(every_s)
                with outage.tolerated():
                    await self.flush()
        finally:
            try:
                await self.flush()
            except StoreUnavailable:
                log.warning("observations_lost")


def _unknown(request_id: str) -> AnswerNotFound:
    return AnswerNotFound(
        f"No answer to a request {request_id} is remembered; send its X-Request-ID."
    )
