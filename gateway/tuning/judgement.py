"""
Which candidate is best, and whether it is better than what there is. Pure: measurements come in.

Measurements come in rounds. In one round every candidate that is still in the search is measured
once, in random order, so that what happens on the machine meanwhile happens to all of them;
a candidate is judged by the medians of its rounds.

The rules, by what is wanted:

    throughput   the most requests a second with the most callers at once
    latency      the lowest p99 with the fewest callers (one)
    balanced     the most requests a second among those whose p99 with the fewest callers is near
                 the lowest: within 10 %, or within the noise where that is more

The winner replaces the present configuration only if it is better by more than the noise: if its
worst round is better than the best round of the present one, and by 3 % at least in the median. The
rounds that decide are taken after the search has named its winner, from these two alone, because
the best of many was partly lucky.

A hiccup of the machine should not hide everything: of seven rounds the best and the worst are left
out, of ten two of each, of thirteen three. As many as that, and no more: of two equal
configurations the one is still called better by chance once or twice in a hundred times at most.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

NEAR = 0.10
"""How much worse than the lowest a p99 may be and still be as good, in parts of it."""
LEAST_GAIN = 0.03
"""What is less than this is not worth a change, however sure it is."""
LEAST_ROUNDS = 2
_UNKNOWN_NOISE = 0.3
# One more at each end is left out for so many rounds beyond the fourth.
_ALL_COUNT, _ROUNDS_FOR_AN_EXTREME = 4, 3


_Candidate = TypeVar("_Candidate")


class Objective(StrEnum):
    """What a configuration is chosen for."""

    BALANCED = "balanced"
    LATENCY = "latency"
    THROUGHPUT = "throughput"


@dataclass(frozen=True, slots=True)
class Measured:
    """One candidate at one number of callers in one round."""

    rate_per_s: float
    p99_s: float


Round = Mapping[int, Measured]
"""What one round found of one candidate, by the number of callers at once."""


@dataclass(frozen=True, slots=True)
class Figures:
    """A candidate's rounds, all at the same numbers of callers."""

    rounds: Sequence[Round]

    def __post_init__(self) -> None:
        if not self.rounds:
            raise ValueError("no round was measured")

    @property
    def callers(self) -> list[int]:
        """The numbers of callers, in order."""
        return sorted(self.rounds[0])

    def rate_per_s(self, callers: int) -> float:
        """Median over the rounds."""
        return statistics.median(self.rates(callers))

    def p99_s(self, callers: int) -> float:
        """Median over the rounds."""
        return statistics.median(self.p99s(callers))

    def rates(self, callers: int) -> list[float]:
        """Requests a second of each round."""
        return [found[callers].rate_per_s for found in self.rounds]

    def p99s(self, callers: int) -> list[float]:
        """99th percentile of each round, seconds."""
        return [found[callers].p99_s for found in self.rounds]

    @property
    def throughputs_per_s(self) -> list[float]:
        """Requests a second with the most callers, of each round."""
        return self.rates(self.callers[-1])

    @property
    def throughput_per_s(self) -> float:
        """Requests a second with the most callers."""
        return statistics.median(self.throughputs_per_s)

    @property
    def latencies_s(self) -> list[float]:
        """99th percentile with the fewest callers, of each round."""
        return self.p99s(self.callers[0])

    @property
    def latency_s(self) -> float:
        """99th percentile with the fewest callers."""
        return statistics.median(self.latencies_s)


@dataclass(frozen=True, slots=True)
class Decision:
    """
    Whether to change the configuration.

    Attributes:
        replace: Whether the winner is better by more than the noise.
        throughput_gain, latency_gain: By how much the winner answers more, and sooner, in parts of
            the present one; less than 0 is worse.
        throughput_noise, latency_noise: How far the rounds of either differ, in parts of their
            median; infinite for a single round.
    """

    replace: bool
    throughput_gain: float
    latency_gain: float
    throughput_noise: float
    latency_noise: float

    @property
    def reason(self) -> str:
        """Say it in a sentence."""
        measured = (
            f"throughput {self.throughput_gain:+.0%} (rounds differ by "
            f"{_percent(self.throughput_noise)}), p99 {-self.latency_gain:+.0%} (rounds differ by "
            f"{_percent(self.latency_noise)})"
        )
        if self.replace:
            return f"Better by more than the noise: {measured}."
        return f"Not better by more than the noise: {measured}. Keep what you have."


def bounds(values: Sequence[float]) -> tuple[float, float]:
    """
    Give the smallest and the largest value of several rounds, without the extremes that are left
    out. Of a single value nothing is known: the bounds are minus and plus infinity.
    """
    if len(values) < LEAST_ROUNDS:
        return -math.inf, math.inf
    ascending = sorted(values)
    left_out = max(0, len(ascending) - _ALL_COUNT) // _ROUNDS_FOR_AN_EXTREME
    return ascending[left_out], ascending[-1 - left_out]


def noise(values: Sequence[float]) -> float:
    """Tell how far the values of several rounds differ, in parts of their median."""
    low, high = bounds(values)
    return (high - low) / statistics.median(values)


def rank(figures: Mapping[_Candidate, Figures], objective: Objective) -> list[_Candidate]:
    """
    Order candidates by the rule of the objective, the best first.

    With `balanced`, those whose latency is near the lowest come first, by throughput; the others
    follow, by latency.
    """
    if objective is Objective.THROUGHPUT:
        return sorted(figures, key=lambda c: -figures[c].throughput_per_s)
    if objective is Objective.LATENCY:
        return sorted(figures, key=lambda c: figures[c].latency_s)
    lowest = min(figures.values(), key=lambda found: found.latency_s)
    limit_s = lowest.latency_s * (1 + max(NEAR, _known(noise(lowest.latencies_s))))

    def order(candidate: _Candidate) -> tuple[bool, float]:
        found = figures[candidate]
        far = found.latency_s > limit_s
        return far, found.latency_s if far else -found.throughput_per_s

    return sorted(figures, key=order)


def decide(present: Figures, winner: Figures, objective: Objective) -> Decision:
    """
    Decide whether a winner replaces the present configuration.

    Args:
        present, winner: Rounds of the two alone, taken in turn.
        objective: `throughput` and `latency` ask for a gain in that alone. `balanced` asks for a
            gain in one of the two, in the latency beyond what counts as near, and for no loss in
            the other, measured alike.
    """
    throughput_gain = winner.throughput_per_s / present.throughput_per_s - 1
    latency_gain = 1 - winner.latency_s / present.latency_s
    faster = _above(winner.throughputs_per_s, present.throughputs_per_s)
    slower = _above(present.throughputs_per_s, winner.throughputs_per_s)
    sooner = _above(present.latencies_s, winner.latencies_s)
    later = _above(winner.latencies_s, present.latencies_s)
    if objective is Objective.THROUGHPUT:
        replace = faster
    elif objective is Objective.LATENCY:
        replace = sooner
    else:
        gained = faster or (sooner and latency_gain > NEAR)
        lost = slower or (later and -latency_gain > NEAR)
        replace = gained and not lost
    return Decision(
        replace,
        throughput_gain,
        latency_gain,
        max(noise(present.throughputs_per_s), noise(winner.throughputs_per_s)),
        max(noise(present.latencies_s), noise(winner.latencies_s)),
    )


def _above(values: Sequence[float], others: Sequence[float]) -> bool:
    """Whether values lie above others beyond the noise, and far enough to matter."""
    far = statistics.median(values) > statistics.median(others) * (1 + LEAST_GAIN)
    return far and bounds(values)[0] > bounds(others)[1]


def _known(value: float) -> float:
    """Put a usual amount of noise in the place of one that a single round cannot tell."""
    return _UNKNOWN_NOISE if math.isinf(value) else value


def _percent(value: float) -> str:
    return "unknown" if math.isinf(value) else f"{value:.0%}"
