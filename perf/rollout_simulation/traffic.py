"""What arrives between two checks, drawn for many rollouts at once."""

import math
from collections import deque
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from perf.rollout_simulation.worlds import (
    CHAMPION_ERRORS,
    CHAMPION_WRONG,
    CLASS_SHARE,
    SPREAD,
    TAIL,
    TIMED,
    WINDOW_RUNS,
    WINDOW_S,
    Array,
    World,
    drift_shares,
    latency_shares,
)

_OF_THE_ROLLOUT = {"judged", "judged_class", "arms", "seen", "mirrored", "shown"}
ARM_LABELS = 4  # labelled and wrong, of the champion and of the challenger
_INCIDENT_S, _HOUR_S = 600, 3600
_MANY = 1_000  # so many in a tail of latencies are drawn bucket by bucket


@dataclass
class Counts:
    """
    Everything counted, for many rollouts.

    Attributes:
        n, n2, e, e2: Requests and errors of the two versions in the current step.
        latency, latency2: Their times, by bucket from `LOW` on.
        windows, slow: Windows of computing, and those in which the challenger was too slow.
        pairs, disagreed, drift: Pairs of answers.
        judged: Labelled pairs of all steps: the challenger right alone, neither, the champion.
        judged_class: The same of the class that may be lost.
        arms: Labels of each step without pairs; [runs, steps, ARM_LABELS].
        seen: Requests of each such step, of the champion and the challenger; [runs, steps, 2].
        mirrored: Pairs of answers over all steps.
        shown: Accuracy was shown not to be worse than tolerated at an earlier check.
    """

    n: Array
    n2: Array
    e: Array
    e2: Array
    latency: Array
    latency2: Array
    windows: Array
    slow: Array
    pairs: Array
    disagreed: Array
    drift: Array
    judged: Array
    judged_class: Array
    arms: Array
    seen: Array
    mirrored: Array
    shown: Array

    @classmethod
    def none(cls, runs: int, steps: int) -> "Counts":
        """Nothing seen yet."""
        wide: dict[str, tuple[int, ...]] = {
            "latency": (TAIL,),
            "latency2": (TAIL,),
            "drift": (3,),
            "judged": (3,),
            "judged_class": (3,),
            "arms": (steps, ARM_LABELS),
            "seen": (steps, 2),
        }
        return cls(**{name: np.zeros((runs, *wide.get(name, ()))) for name in cls.__annotations__})

    def keep(self, rows: Array) -> "Counts":
        """Only some rollouts."""
        return Counts(**{name: value[rows] for name, value in vars(self).items()})

    def forget(self, rows: Array) -> None:
        """Begin a new step for some; labels count over the whole rollout."""
        for name, value in vars(self).items():
            if name not in _OF_THE_ROLLOUT:
                value[rows] = 0


class Traffic:
    """Draws what arrives between two checks."""

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        self.world, self.rng = world, rng
        self.shares, self.shares2 = latency_shares(1.0), latency_shares(world.slower)
        self.drift = drift_shares(world.drift)
        self.delay = round(world.delay_s / world.check_s)
        # What waits for its labels, from each check on: steps, requests, pairs.
        self.waiting: deque[tuple[int, tuple[Array, ...]]] = deque()

    def latencies(self, into: Array, answered: Array, shares: Array) -> None:
        """Add a multinomial draw to each row; only what lies in the tail is drawn one by one."""
        high = self.rng.binomial(answered, 1 - shares[0])
        into[:, 0] += answered - high
        if len(high) and high.mean() > _MANY:
            into[:, 1:] += self.rng.multinomial(high, shares[1:] / shares[1:].sum())
            return
        ends = np.cumsum(shares[1:]) / (1 - shares[0])
        bucket = 1 + np.searchsorted(ends[:-1], self.rng.random(int(high.sum())), side="right")
        rows = np.repeat(np.arange(len(into)), high)
        np.add.at(into, (rows, bucket), 1)

    def keep(self, rows: Array) -> None:
        """Only some rollouts go on."""
        self.waiting = deque(
            (check, tuple(each[rows] for each in entry)) for check, entry in self.waiting
        )

    def arrive(
        self,
        seen: Counts,
        step: Array,
        weight: Array,
        shadow: Array,
        check: int,
        intervals: int = 1,
    ) -> None:
        """Add the intervals up to a check to the counts."""
        world, rng = self.world, self.rng
        rate = world.requests_per_s * world.check_s
        requests = (
            np.full(len(weight), round(rate * intervals))
            if rate >= 1
            else rng.binomial(intervals, rate, len(weight))
        )
        n2 = np.where(shadow, requests, rng.binomial(requests, weight))
        n = np.where(shadow, requests, requests - n2)
        at_s = np.arange(check - intervals + 1, check + 1) * world.check_s
        incident = world.incidents * float((at_s % _HOUR_S < _INCIDENT_S).mean())
        e = self._errors(n, CHAMPION_ERRORS, incident)
        e2 = self._errors(n2, world.errors, incident)
        seen.n += n
        seen.n2 += n2
        seen.e += e
        seen.e2 += e2
        self._times(seen, n - e, n2 - e2, shadow, intervals * world.check_s)
        rows = np.arange(len(step))
        seen.seen[rows, step, 0] += n * ~shadow
        seen.seen[rows, step, 1] += n2 * ~shadow
        pairs = requests * shadow
        if shadow.any():
            seen.pairs += pairs
            seen.mirrored += pairs
            seen.disagreed += rng.binomial(pairs, world.disagrees)
            seen.drift += rng.multinomial(pairs, self.drift)
        self.waiting.append((check, (step.copy(), n * ~shadow, n2 * ~shadow, pairs)))
        while self.waiting and self.waiting[0][0] + self.delay <= check:
            self._label(seen, *self.waiting.popleft()[1])

    def _errors(self, requests: Array, rate: float, incident: float) -> Array:
        """How many fail; in an incident, which is a share of the time, ten times as many."""
        out = self.world.outage
        during = self.rng.binomial(requests, incident) if incident else 0 * requests
        usual, worse = (out + (1 - out) * rate * times for times in (1, 10))
        return np.asarray(
            self.rng.binomial(requests - during, usual) + self.rng.binomial(during, min(1, worse))
        )

    def _times(
        self, seen: Counts, answered: Array, answered2: Array, shadow: Array, time_s: float
    ) -> None:
        world, rng = self.world, self.rng
        timed = rng.binomial(np.minimum(answered, answered2), TIMED)
        self.latencies(seen.latency, np.where(shadow, timed, answered), self.shares)
        self.latencies(seen.latency2, np.where(shadow, timed, answered2), self.shares2)
        # A shadow's windows count on a full machine only, which this one is not.
        windows = np.minimum(time_s / WINDOW_S, np.minimum(answered, answered2) / WINDOW_RUNS)
        windows = np.floor(windows + rng.random(len(windows))) * ~shadow
        apart = SPREAD * math.sqrt(2 / WINDOW_RUNS)
        too_slow = NormalDist().cdf(math.log(world.slower / 1.2) / apart)
        seen.windows += windows
        seen.slow += rng.binomial(windows.astype(int), too_slow)

    def _label(self, seen: Counts, step: Array, n: Array, n2: Array, pairs: Array) -> None:
        world, rng = self.world, self.rng
        rows = np.arange(len(step))
        wrong, wrong2 = CHAMPION_WRONG, world.wrong
        if world.complaints:
            # All that is labelled is wrong: the champion in shadow, whoever answered later.
            told, told2 = (
                rng.binomial(of, rate * world.feedback) for of, rate in ((n, wrong), (n2, wrong2))
            )
            labels = (told, told, told2, told2)
            complained = rng.binomial(pairs, wrong * world.feedback)
            won = rng.binomial(complained, world.won / wrong)
            seen.judged += np.stack([won, complained - won, np.zeros_like(won)], axis=1)
        else:
            labelled, labelled2 = (rng.binomial(of, world.feedback) for of in (n, n2))
            labels = (
                labelled,
                rng.binomial(labelled, wrong),
                labelled2,
                rng.binomial(labelled2, wrong2),
            )
            told = rng.binomial(pairs, world.feedback)
            self._label_pairs(seen, told)
        for place, count in enumerate(labels):
            seen.arms[rows, step, place] += count

    def _label_pairs(self, seen: Counts, told: Array) -> None:
        world, rng = self.world, self.rng
        if not world.lost_class:
            outcome = (world.won, 1 - world.won - world.lost, world.lost)
            seen.judged += rng.multinomial(told, outcome)
            return
        of_class = rng.binomial(told, CLASS_SHARE)
        lost = rng.binomial(of_class, world.lost_class)
        in_class = np.stack([np.zeros_like(lost), of_class - lost, lost], axis=1)
        rest = told - of_class
        won_elsewhere = world.won / (1 - CLASS_SHARE)
        won = rng.binomial(rest, won_elsewhere)
        seen.judged_class += in_class
        seen.judged += in_class + np.stack([won, rest - won, np.zeros_like(won)], axis=1)
