"""
Remember what was answered until somebody tells the true class.

Where a model gets feedback, the answers of its rollouts go to the store, so that feedback finds
them hours later, at any gateway and after a restart. Where nobody gives any, and outside of
rollouts, the newest `REMEMBERED` are kept in memory, so that the first feedback finds its answer.

In shadow an answer is known before the challenger's is. Feedback that comes in between counts for
the champion at once, and for the pair as soon as there is one.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import structlog

from gateway.errors import AnswerNotFound, StoreUnavailable
from gateway.rollouts.live.tally import Tally
from gateway.rollouts.state.traffic import Assignment, StepId, Traffic
from gateway.store.feedback import CategoryOf, FeedbackStore, Sees, StoredAnswer

log = structlog.get_logger(__name__)

REMEMBERED = 16_384
# Answers that wait for the store; while it is away the oldest are given up.
_ANSWERS_KEPT = 50_000
_LOOK_EVERY_S = 30.0
_ENDED_WITHIN_S = 1.0

Content = TypeVar("Content")
Recalled = tuple[str, int, int]
"""Model, version and category of an answer."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What feedback was about."""

    model: str
    version: int
    right: bool
    counted: bool


@dataclass(slots=True)
class _Pending:
    """A shadow's answer whose copy is under way, and the true class if it was told already."""

    answered: StoredAnswer
    category: int | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Answers:
    """Answers that this gateway gave."""

    def __init__(
        self,
        tally: Tally,
        feedback: FeedbackStore,
        *,
        window_s: float,
        traffic: Callable[[], Traffic] = Traffic,
        elsewhere: Callable[[str], Awaitable[Recalled | None]] | None = None,
    ) -> None:
        """
        Args:
            tally: Where feedback is counted.
            feedback: Where answers go.
            window_s: How long an answer waits for feedback, in seconds.
            traffic: Tells which models' rollouts expect labels, and how their classes translate.
            elsewhere: Finds the answer to a request that another process of this gateway gave.
        """
        self._tally = tally
        self._feedback = feedback
        self._window_s = window_s
        self._traffic = traffic
        self._elsewhere = elsewhere
        self._recent: OrderedDict[str, Recalled] = OrderedDict()
        self._held: OrderedDict[str, StoredAnswer] = OrderedDict()
        self._pending: OrderedDict[str, _Pending] = OrderedDict()
        self._unstored: OrderedDict[str, StoredAnswer] = OrderedDict()
        self._flushing = asyncio.Lock()
        self._labelled: frozenset[str] = frozenset()
        self._looked_s = -_LOOK_EVERY_S

    def remember(self, request_id: str, model: str, version: int, category: int) -> None:
        """Remember an answer outside of rollouts."""
        _put(self._recent, request_id, (model, version, category), REMEMBERED)

    def remember_assigned(self, assignment: Assignment, request_id: str, category: int) -> None:
        """Remember an answer of a rollout."""
        self._keep(_answered(assignment, request_id, category))

    def begin_pair(self, assignment: Assignment, request_id: str, category: int) -> None:
        """Remember a champion's answer; `end_pair` tells what the challenger said."""
        pending = _Pending(_answered(assignment, request_id, category))
        _put(self._pending, request_id, pending, _ANSWERS_KEPT)

    def end_pair(self, request_id: str, challenger_category: int | None) -> None:
        """Tell what the challenger said to a request; None if it did not answer."""
        pending = self._pending.pop(request_id, None)
        if pending is None:
            return
        pending.ended.set()
        answered = replace(pending.answered, challenger_category=challenger_category)
        if pending.category is None:
            self._keep(answered)
            return
        self._count(answered, pending.category)
        self.remember(request_id, answered.model, answered.version, answered.category)

    async def judge(
        self, request_id: str, category_of: CategoryOf, *, sees: Sees = lambda _: True
    ) -> Judged:
        """
        Take the true class of an answered request into account, once.

        Args:
            request_id: Of the request.
            category_of: The true class, in the numbering of the version that answered.
            sees: Whether a model exists for the caller; answers of others are not found.

        Raises:
            AnswerNotFound: No such request is remembered.
            StoreUnavailable: The store is away.
        """
        if (pending := self._pending.get(request_id)) is not None:
            recalled = _recalled(pending.answered)
            judged = await self._count_once(request_id, recalled, category_of, sees)
            if judged.counted:
                self._judge_pending(request_id, pending, category_of)
            return judged
        if (held := self._held.get(request_id)) is not None:
            judged = await self._count_once(request_id, _recalled(held), category_of, sees)
            if judged.counted:
                self._count(held, category_of(held.model, held.version))
            return judged
        if (recent := self._recent.get(request_id)) is not None:
            return await self._count_once(request_id, recent, category_of, sees)
        return await self._judge_stored(request_id, category_of, sees)

    def _judge_pending(self, request_id: str, pending: _Pending, category_of: CategoryOf) -> None:
        answered = pending.answered
        category = category_of(answered.model, answered.version)
        if pending.ended.is_set():
            # The pair was completed while the store was being written.
            found = self._unstored.get(request_id) or self._held.get(request_id) or answered
            self._count(found, category)
        else:
            pending.category = category

    async def _judge_stored(self, request_id: str, category_of: CategoryOf, sees: Sees) -> Judged:
        claimed = await self._feedback.claim(request_id, category_of, sees)
        if claimed is None:
            # It may be among the answers of the last second, which are not stored yet.
            await self.flush()
            claimed = await self._feedback.claim(request_id, category_of, sees)
        if claimed is None and self._elsewhere is not None:
            recent = await self._elsewhere(request_id)
            if recent is not None:
                return await self._count_once(request_id, recent, category_of, sees)
            # Whoever answered it has stored it by now.
            claimed = await self._feedback.claim(request_id, category_of, sees)
        if claimed is None:
            raise _unknown(request_id)
        answered, first = claimed
        category = category_of(answered.model, answered.version)
        if first:
            self._count(answered, category)
            self._labelled |= {answered.model}
        return Judged(answered.model, answered.version, answered.category == category, first)

    async def _count_once(
        self, request_id: str, recalled: Recalled, category_of: CategoryOf, sees: Sees
    ) -> Judged:
        model, version, answer = recalled
        if not sees(model):
            raise _unknown(request_id)
        right = answer == category_of(model, version)
        first = await self._feedback.add(request_id, model, version, wrong=not right)
        self._labelled |= {model}
        return Judged(model, version, right=right, counted=first)

    async def recall(self, request_id: str) -> Recalled | None:
        """
        Find an answer for another process: one of a rollout is stored, so that the other finds it
        there, with what belongs to it; any other is given.
        """
        if (pending := self._pending.get(request_id)) is not None:
            try:
                await asyncio.wait_for(pending.ended.wait(), _ENDED_WITHIN_S)
            except TimeoutError:
                return _recalled(pending.answered)
        if (held := self._held.pop(request_id, None)) is not None:
            self._unstored[request_id] = held
        await self.flush()
        return self._recent.get(request_id)

    def _keep(self, answered: StoredAnswer) -> None:
        if answered.model in self._labelled or answered.model in self._traffic().labelled:
            _put(self._unstored, answered.request_id, answered, _ANSWERS_KEPT)
        else:
            _put(self._held, answered.request_id, answered, REMEMBERED)

    def _count(self, answered: StoredAnswer, category: int) -> None:
        counts = self._tally.counts(StepId(answered.rollout, answered.stage, answered.step))
        right = answered.category == category
        if self._traffic().tells_apart(
            answered.model, category, by_challenger=answered.by_challenger
        ):
            counts.apart += 1
        elif answered.challenger_category is not None:
            counts.judged_pair(
                category,
                champion_right=right,
                challenger_right=answered.challenger_category == category,
            )
        else:
            arm = counts.challenger if answered.by_challenger else counts.champion
            arm.judged(right=right, caller=answered.caller)

    async def flush(self) -> None:
        """
        Store what is to be stored, and now and then learn which models get feedback.

        Raises:
            StoreUnavailable: The store is away; nothing is lost, the next flush stores it.
        """
        async with self._flushing:
            answers, self._unstored = self._unstored, OrderedDict()
            try:
                if answers:
                    await self._feedback.put_answers(answers.values())
            except StoreUnavailable:
                self._unstored = OrderedDict({**answers, **self._unstored})
                raise
            if time.monotonic() - self._looked_s > _LOOK_EVERY_S:
                self._looked_s = time.monotonic()
                self._labelled = await self._feedback.models_with_feedback(within_s=self._window_s)


def _answered(assignment: Assignment, request_id: str, category: int) -> StoredAnswer:
    return StoredAnswer(
        request_id=request_id,
        rollout=assignment.id.rollout,
        stage=assignment.id.stage,
        step=assignment.id.step,
        model=assignment.model,
        version=assignment.version,
        category=category,
        challenger_category=None,
        at_s=time.time(),
        by_challenger=assignment.version == assignment.challenger,
        caller=assignment.caller,
    )


def _unknown(request_id: str) -> AnswerNotFound:
    return AnswerNotFound(
        f"No answer to a request {request_id} is remembered; send its X-Request-ID."
    )


def _recalled(answered: StoredAnswer) -> Recalled:
    return answered.model, answered.version, answered.category


def _put(remembered: OrderedDict[str, Content], key: str, content: Content, most: int) -> None:
    remembered[key] = content
    if len(remembered) > most:
        remembered.popitem(last=False)
