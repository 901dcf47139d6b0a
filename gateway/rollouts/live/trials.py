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
from gateway.rollouts.state.traffic import Traffic, Trial

# A challenger's share of the requests may be so many times its weight, when few callers that name
# themselves send most of them.
_CAP = 2.0
_CAP_FROM = 50


@dataclass(frozen=True, slots=True)
class Outcome:
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


class Trials:
    """The rollouts, as seen by a request."""

    def __init__(
        self, traffic: Callable[[], Traffic], tally: Tally, answers: Answers, mirror: Mirror
    ) -> None:
        self._traffic = traffic
        self._tally = tally
        self._answers = answers
        self._mirror = mirror
        self._lots = random.Random()  # noqa: S311 - it draws lots, no secrets

    def trial(self, model: str, champion: int, *, key: str | None) -> Trial | None:
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
        trial = traffic.trial(model, champion, caller=caller, draw=draw)
        if trial is None or caller is None or trial.version == champion:
            return trial
        return trial if self._within_cap(trial, traffic.weight(model)) else None

    def answered(self, model: str, version: int, request_id: str, category: int) -> None:
        """Remember an answer outside of rollouts, for feedback."""
        self._answers.remember(request_id, model, version, category)

    def observe(self, trial: Trial, outcome: Outcome) -> None:
        """
        Take note of how the version that was to answer did. The caller's own mistakes are not
        reported here.
        """
        if outcome.fallback is not None:
            self._answers.remember(
                outcome.request_id, trial.model, trial.champion, outcome.fallback
            )
        if trial.shadow:
            self._observe_shadow(trial, outcome)
            return
        counts = self._tally.counts(trial.id)
        arm = counts.challenger if trial.version == trial.challenger else counts.champion
        counts.shared += outcome.shared
        if outcome.scores is None:
            arm.failed(trial.caller)
        else:
            arm.answered(outcome.latency_s, trial.caller)
            category = int(np.argmax(outcome.scores))
            self._answers.remember_trial(trial, outcome.request_id, category)

    def _observe_shadow(self, trial: Trial, outcome: Outcome) -> None:
        if outcome.scores is not None:
            category = int(np.argmax(outcome.scores))
            if not trial.mirrored:
                self._answers.remember_trial(trial, outcome.request_id, category)
                return
            self._answers.begin_pair(trial, outcome.request_id, category)
        if trial.mirrored:
            self._mirror.offer(
                Copy(trial, outcome.request_id, outcome.encoded, outcome.tensor, outcome.scores)
            )

    def _within_cap(self, trial: Trial, weight: float) -> bool:
        counts = self._tally.counts(trial.id)
        ours = counts.challenger.requests + counts.challenger.blocks.requests
        all_ = ours + counts.champion.requests + counts.champion.blocks.requests + counts.capped
        if ours < _CAP_FROM or ours <= _CAP * weight / 100 * all_:
            return True
        counts.capped += 1
        return False


def _name(key: str) -> str:
    """A caller's name within a rollout; nothing of what it sent is kept."""
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
