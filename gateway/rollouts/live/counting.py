"""
Count what is observed, in memory, by step of a rollout; add nothing to the path of a request but a
few additions. `recorder.py` takes the counts to the store.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gateway.rollouts.statistics.observations import (
    Arm,
    Histogram,
    Observations,
    Pairs,
    distance_bucket,
    latency_bucket,
)


@dataclass(slots=True)
class ArmCounts:
    """One version's answers; becomes an `Arm`."""

    requests: int = 0
    errors: int = 0
    latencies: Counter[int] = field(default_factory=Counter)
    labelled: int = 0
    wrong: int = 0

    def answered(self, latency_s: float) -> None:
        """Count an answer."""
        self.requests += 1
        self.latencies[latency_bucket(latency_s)] += 1

    def failed(self) -> None:
        """Count a request that it failed."""
        self.requests += 1
        self.errors += 1

    def judged(self, *, right: bool) -> None:
        """Count feedback."""
        self.labelled += 1
        self.wrong += not right

    def freeze(self) -> Arm:
        """Give the counts so far."""
        return Arm(
            self.requests,
            self.errors,
            Histogram(dict(self.latencies)),
            self.labelled,
            self.wrong,
        )


@dataclass(slots=True)
class StepCounts:
    """All of one step; becomes `Observations`."""

    champion: ArmCounts = field(default_factory=ArmCounts)
    challenger: ArmCounts = field(default_factory=ArmCounts)
    compared: int = 0
    disagreed: int = 0
    distances: Counter[int] = field(default_factory=Counter)
    labelled_pairs: int = 0
    only_champion_right: int = 0
    only_challenger_right: int = 0
    dropped: int = 0

    def pair(self, *, agree: bool, distance: float) -> None:
        """Count two answers to one request; `distance` of the score vectors in [0, 1]."""
        self.compared += 1
        self.disagreed += not agree
        self.distances[distance_bucket(distance)] += 1

    def judged_pair(self, *, champion_right: bool, challenger_right: bool) -> None:
        """Count feedback on a request that both answered."""
        self.champion.judged(right=champion_right)
        self.challenger.judged(right=challenger_right)
        self.labelled_pairs += 1
        self.only_champion_right += champion_right and not challenger_right
        self.only_challenger_right += challenger_right and not champion_right

    def freeze(self) -> Observations:
        """Give the counts so far."""
        return Observations(
            self.champion.freeze(),
            self.challenger.freeze(),
            Pairs(
                self.compared,
                self.disagreed,
                Histogram(dict(self.distances)),
                self.labelled_pairs,
                self.only_champion_right,
                self.only_challenger_right,
            ),
        )


def scores_distance(first: npt.NDArray[np.generic], second: npt.NDArray[np.generic]) -> float:
    """
    Total variation of two score vectors, any shape, finite; logits become probabilities first.

    Returns:
        0 (the same) to 1; 1 where the vectors have different lengths.
    """
    p, q = _probabilities(first), _probabilities(second)
    if p.size != q.size:
        return 1.0
    return min(1.0, float(np.abs(p - q).sum() / 2))


def _probabilities(scores: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    flat = scores.reshape(-1).astype(np.float64)
    if flat.min() >= 0 and abs(flat.sum() - 1) < 1e-2:
        flat /= flat.sum()
        return flat
    powers: npt.NDArray[np.float64] = np.exp(flat - flat.max())
    powers /= powers.sum()
    return powers
