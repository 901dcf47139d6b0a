"""
What the path of a request needs of rollouts: which version is to answer, and whom to tell how it
went. Everything here is in memory and waits for nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gateway.rollouts.live.mirror import Copy, Input, Mirror
from gateway.rollouts.live.recorder import Recorder
from gateway.rollouts.state.traffic import Traffic, Trial


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
    """

    request_id: str
    encoded: bytes
    tensor: Input | None = None
    scores: npt.NDArray[np.generic] | None = None
    latency_s: float = 0.0


class Trials:
    """The rollouts, as seen by a request."""

    def __init__(self, traffic: Callable[[], Traffic], recorder: Recorder, mirror: Mirror) -> None:
        self._traffic = traffic
        self._recorder = recorder
        self._mirror = mirror

    def trial(self, model: str, champion: int, *, key: str, request_id: str) -> Trial | None:
        """Tell what a rollout asks of a request that pins nothing; see `Traffic.trial`."""
        return self._traffic().trial(model, champion, key=key, request_id=request_id)

    def answered(self, model: str, version: int, request_id: str, category: int) -> None:
        """Remember an answer outside of rollouts, for feedback."""
        self._recorder.remember(request_id, model, version, category)

    def observe(self, trial: Trial, outcome: Outcome) -> None:
        """
        Take note of how the version that was to answer did. The caller's own mistakes are not
        reported here.
        """
        if trial.shadow:
            self._observe_shadow(trial, outcome)
            return
        counts = self._recorder.counts(trial.id)
        arm = counts.challenger if trial.version == trial.challenger else counts.champion
        if outcome.scores is None:
            arm.failed()
        else:
            arm.answered(outcome.latency_s)
            category = int(np.argmax(outcome.scores))
            self._recorder.remember_trial(trial, outcome.request_id, category)

    def _observe_shadow(self, trial: Trial, outcome: Outcome) -> None:
        if trial.mirrored:
            failed = outcome.scores is None
            self._mirror.offer(
                Copy(
                    trial,
                    outcome.request_id,
                    outcome.encoded,
                    outcome.tensor,
                    outcome.scores,
                    None if failed else outcome.latency_s,
                )
            )
        elif outcome.scores is not None:
            self._recorder.remember_trial(trial, outcome.request_id, int(np.argmax(outcome.scores)))
