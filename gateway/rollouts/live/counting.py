"""
Count what is observed, in memory, by step of a rollout; add nothing to the path of a request but a
few additions. `tally.py` takes the counts to the store.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gateway.rollouts.live.callers import Blocks
from gateway.rollouts.state.classes import ClassMap, translated
from gateway.rollouts.statistics.histogram import Histogram, distance_bucket, latency_bucket
from gateway.rollouts.statistics.observations import Arm, ClassPairs, Compute, Observations, Pairs


@dataclass(slots=True)
class ArmCounts:
    """
    One version's answers; becomes an `Arm`.

    Attributes:
        requests, errors, latencies, labelled, wrong: Of requests that name no caller.
        blocks: Of requests that do.
    """

    requests: int = 0
    errors: int = 0
    latencies: Counter[int] = field(default_factory=Counter)
    labelled: int = 0
    wrong: int = 0
    blocks: Blocks = field(default_factory=Blocks)

    def answered(self, latency_s: float | None = None, caller: str | None = None) -> None:
        """Count an answer; without a latency where it was not measured like with like."""
        bucket = None if latency_s is None else latency_bucket(latency_s)
        if caller is not None:
            self.blocks.request(caller, failed=False, bucket=bucket)
            return
        self.requests += 1
        if bucket is not None:
            self.latencies[bucket] += 1

    def failed(self, caller: str | None = None) -> None:
        """Count a request that it failed."""
        if caller is not None:
            self.blocks.request(caller, failed=True)
            return
        self.requests += 1
        self.errors += 1

    def timed(self, latency_s: float) -> None:
        """Count how long an answer took that is counted already."""
        self.latencies[latency_bucket(latency_s)] += 1

    def judged(self, *, right: bool, caller: str | None = None) -> None:
        """Count feedback."""
        if caller is not None:
            self.blocks.label(caller, wrong=not right)
            return
        self.labelled += 1
        self.wrong += not right

    def freeze(self) -> Arm:
        """Give the counts so far of requests that name no caller."""
        return Arm(
            self.requests,
            self.errors,
            Histogram(dict(self.latencies)),
            self.labelled,
            self.wrong,
        )


@dataclass(slots=True)
class StepCounts:
    """
    All of one step; becomes `Observations`.

    Attributes:
        champion, challenger: The two versions.
        compared, disagreed, distances: Pairs of answers to one request.
        labelled_pairs, only_champion_right, only_challenger_right: Those whose true class is known.
        classes: The same by true class: labelled, only champion right, only challenger right.
        apart: Answers and labels of a class that only one of the versions knows.
        shared: Requests that both versions failed.
        capped: Requests of named callers that the challenger was spared, to keep to its weight.
        compute: Triton's own measurements.
        dropped: Copies that were not sent.
    """

    champion: ArmCounts = field(default_factory=ArmCounts)
    challenger: ArmCounts = field(default_factory=ArmCounts)
    compared: int = 0
    disagreed: int = 0
    distances: Counter[int] = field(default_factory=Counter)
    labelled_pairs: int = 0
    only_champion_right: int = 0
    only_challenger_right: int = 0
    classes: dict[int, list[int]] = field(default_factory=dict)
    apart: int = 0
    shared: int = 0
    capped: int = 0
    compute: Compute = field(default_factory=Compute)
    dropped: int = 0

    @property
    def of_callers(self) -> bool:
        """Whether more than a twentieth of the requests come from callers that name themselves."""
        named = self.champion.blocks.requests + self.challenger.blocks.requests
        return 20 * named > named + self.champion.requests + self.challenger.requests

    def pair(self, *, agree: bool, distance: float) -> None:
        """Count two answers to one request; `distance` of the score vectors in [0, 1]."""
        self.compared += 1
        self.disagreed += not agree
        self.distances[distance_bucket(distance)] += 1

    def compared_scores(
        self,
        champion: npt.NDArray[np.generic],
        challenger: npt.NDArray[np.generic],
        classes: ClassMap | None,
    ) -> bool:
        """
        Count two score vectors for one request.

        Args:
            champion, challenger: Any shape, finite.
            classes: The champion's number for each class of the challenger.

        Returns:
            Whether they name the same class. One that only one of the versions knows is told apart.
        """
        ours, theirs = int(np.argmax(champion)), translated(int(np.argmax(challenger)), classes)
        if theirs < 0 or (classes is not None and ours not in classes):
            self.apart += 1
            return False
        placed = in_champion_order(challenger, classes, champion.size)
        self.pair(agree=ours == theirs, distance=scores_distance(champion, placed))
        return ours == theirs

    def judged_pair(self, category: int, *, champion_right: bool, challenger_right: bool) -> None:
        """Count feedback on a request that both answered; `category` is the true class."""
        self.champion.judged(right=champion_right)
        self.challenger.judged(right=challenger_right)
        lost = champion_right and not challenger_right
        won = challenger_right and not champion_right
        self.labelled_pairs += 1
        self.only_champion_right += lost
        self.only_challenger_right += won
        of_class = self.classes.setdefault(category, [0, 0, 0])
        for place, count in enumerate((1, lost, won)):
            of_class[place] += count

    def freeze(self) -> Observations:
        """Give the counts so far."""
        return Observations(
            champion=self.champion.freeze(),
            challenger=self.challenger.freeze(),
            pairs=Pairs(
                self.compared,
                self.disagreed,
                Histogram(dict(self.distances)),
                self.labelled_pairs,
                self.only_champion_right,
                self.only_challenger_right,
            ),
            callers_champion=self.champion.blocks.freeze(),
            callers_challenger=self.challenger.blocks.freeze(),
            of_callers_champion=self.champion.blocks.requests,
            of_callers_challenger=self.challenger.blocks.requests,
            classes={category: ClassPairs(*counts) for category, counts in self.classes.items()},
            apart=self.apart,
            shared=self.shared,
            capped=self.capped,
            compute=self.compute,
        )


def scores_distance(first: npt.NDArray[np.generic], second: npt.NDArray[np.generic]) -> float:
    """
    Total variation of two score vectors, any shape, finite; logits become probabilities first.

    Returns:
        0 (the same) to 1; 1 where the vectors have different lengths.
    """
    p, q = probabilities(first), probabilities(second)
    if p.size != q.size:
        return 1.0
    return min(1.0, float(np.abs(p - q).sum() / 2))


def probabilities(scores: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    """Flatten a score vector; logits become probabilities."""
    flat = scores.reshape(-1).astype(np.float64)
    if flat.min() >= 0 and abs(flat.sum() - 1) < 1e-2:
        flat /= flat.sum()
        return flat
    powers: npt.NDArray[np.float64] = np.exp(flat - flat.max())
    powers /= powers.sum()
    return powers


def in_champion_order(
    scores: npt.NDArray[np.generic], classes: ClassMap | None, size: int
) -> npt.NDArray[np.generic]:
    """
    Put the challenger's scores in the champion's order, for `size` classes, as probabilities. What
    only the challenger knows is left out, and the others share its part.
    """
    if classes is None or scores.size != len(classes):
        return scores
    found = probabilities(scores)
    placed = np.zeros(size)
    for place, champion_place in enumerate(classes):
        if 0 <= champion_place < size:
            placed[champion_place] += found[place]
    whole = placed.sum()
    return placed / whole if whole > 0 else placed
