"""
What the path of a request needs of rollouts: which version is to answer, and whom to tell how it
went. Everything here is in memory and waits for nothing.
"""

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gateway.rollouts.live.answers import Answers
from gateway.rollouts.live.mirror import Copy, Input, Mirror
from gateway.rollouts.live.tally import Tally
from gateway.rollouts.state.traffic import Assignment, Traffic

# A challenger's share of the requests may be so many times its weight, when few callers that name
# themselves send most of them.
_CAP = 2.0
_CAP_FROM = 50


@dataclass(frozen=True, slots=True)
class RequestResult:
    """
    How one version did on one request.

    Attributes:
        request_id: The request.
        encoded: The image file's bytes.
        tensor: What the version was given; None if it did not come to that, or if nobody wants
            to know.
        scores: What it answered, finite; None if it failed.
        latency_s: How long Triton took to answer.
        fallback: What the champion answered in place of a challenger that failed.
        shared: The champion failed on the same request.
    """

    request_id: str
    encoded: bytes
    tensor: Input | None = None
    scores: npt.NDArray[np.generic] | None = None
    latency_s: float = 0.0
    fallback: int | None = None
    shared: bool = False


class Assignments:
    """The rollouts, as seen by a request."""

    def __init__(
        self, traffic: Callable[[], Traffic], tally: Tally, answers: Answers, mirror: Mirror
    ) -> None:
        self._traffic = traffic
        self._tally = tally
        self._answers = answers
        self._mirror = mirror
        self._lots = random.Random()  # noqa: S311 - it draws lots, no secrets

    def assign(self, model: str, champion: int, *, key: str | None) -> Assignment | None:
        """
        Tell what a rollout asks of a request that pins nothing.

        Args:
            model: The model's name.
            champion: The version that answers without a rollout.
            key: Who asks, if the caller names itself: it stays with one version. Without a key
                each request draws a lot of its own; request ids are the caller's, and may repeat.

        Returns:
            None without a rollout, and where the challenger has had more than its share.
        """
        traffic = self._traffic()
        if not traffic.steps:
            return None
        caller = None if key is None else _name(key)
        draw = f"{self._lots.getrandbits(64):x}"
        assignment = traffic.assign(model, champion, caller=caller, draw=draw)
        if assignment is None or caller is None or assignment.version == champion:
            return assignment
        return assignment if self._within_cap(assignment, traffic.weight(model)) else None

    def answered(self, model: str, version: int, request_id: str, category: int) -> None:
        """Remember an answer outside of rollouts, for feedback."""
        self._answers.remember(request_id, model, version, category)

    def observe(self, assignment: Assignment, result: RequestResult) -> None:
        """
        Take note of how the version that was to answer did. The caller's own mistakes are not
        reported here.
        """
        if result.fallback is not None:
            self._answers.remember(
                result.request_id, assignment.model, assignment.champion, result.fallback
            )
        if assignment.shadow:
            self._observe_shadow(assignment, result)
            return
        counts = self._tally.counts(assignment.id)
        arm = counts.challenger if assignment.version == assignment.challenger else counts.champion
        counts.shared += result.shared
        if result.scores is None:
            arm.failed(assignment.caller)
        else:
            arm.answered(result.latency_s, assignment.caller)
            category = int(np.argmax(result.scores))
            self._answers.remember_assigned(assignment, result.request_id, category)

    def _observe_shadow(self, assignment: Assignment, result: RequestResult) -> None:
        if result.scores is not None:
            category = int(np.argmax(result.scores))
            if not assignment.mirrored:
                self._answers.remember_assigned(assignment, result.request_id, category)
                return
            self._answers.begin_pair(assignment, result.request_id, category)
        if assignment.mirrored:
            self._mirror.offer(
                Copy(assignment, result.request_id, result.encoded, result.tensor, result.scores)
            )

    def _within_cap(self, assignment: Assignment, weight: float) -> bool:
        counts = self._tally.counts(assignment.id)
        ours = counts.challenger.requests + counts.challenger.blocks.requests
        all_ = ours + counts.champion.requests + counts.champion.blocks.requests + counts.capped
        if ours < _CAP_FROM or ours <= _CAP * weight / 100 * all_:
            return True
        counts.capped += 1
        return False


def _name(key: str) -> str:
    """A caller's name within a rollout; nothing of what it sent is kept."""
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
