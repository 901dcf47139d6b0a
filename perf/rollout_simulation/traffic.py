"""What arrives between two checks, drawn for many rollouts at once."""

from dataclasses import dataclass

import numpy as np

from perf.rollout_simulation.worlds import (
    CHAMPION_ERRORS,
    CHAMPION_WRONG,
    CHECK_S,
    TAIL,
    Array,
    World,
    drift_shares,
    latency_shares,
)


@dataclass
class Counts:
    """Everything counted in the current step, for many rollouts."""

    n: Array
    n2: Array
    e: Array
    e2: Array
    latency: Array
    latency2: Array
    labelled: Array
    labelled2: Array
    wrong: Array
    wrong2: Array
    pairs: Array
    disagreed: Array
    drift: Array
    judged: Array

    @classmethod
    def none(cls, runs: int) -> "Counts":
        """Nothing seen yet."""
        wide = {"latency": TAIL, "latency2": TAIL, "drift": 3, "judged": 3}
        return cls(
            **{
                name: np.zeros((runs, wide[name]) if name in wide else runs)
                for name in cls.__annotations__
            }
        )

    def keep(self, rows: Array) -> "Counts":
        """Only some rollouts."""
        return Counts(**{name: value[rows] for name, value in vars(self).items()})

    def forget(self, rows: Array) -> None:
        """A new step begins for some."""
        for value in vars(self).values():
            value[rows] = 0


class Traffic:
    """Draws what arrives between two checks."""

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        self.world, self.rng = world, rng
        self.shares, self.shares2 = latency_shares(1.0), latency_shares(world.slower)
        self.drift = drift_shares(world.drift)

    def latencies(self, into: Array, answered: Array, shares: Array) -> None:
        """Add a multinomial draw to each row; only what lies in the tail is drawn one by one."""
        high = self.rng.binomial(answered, 1 - shares[0])
        into[:, 0] += answered - high
        ends = np.cumsum(shares[1:]) / (1 - shares[0])
        bucket = 1 + np.searchsorted(ends[:-1], self.rng.random(int(high.sum())), side="right")
        rows = np.repeat(np.arange(len(into)), high)
        into += np.bincount(rows * TAIL + bucket, minlength=into.size).reshape(into.shape)

    def arrive(self, seen: Counts, weight: Array, shadow: Array, check: int) -> None:
        """Add one interval to the counts."""
        world, rng = self.world, self.rng
        rate = world.requests_per_s * CHECK_S
        requests = (
            np.full(len(weight), int(rate)) if rate >= 1 else rng.binomial(1, rate, len(weight))
        )
        n2 = np.where(shadow, requests, rng.binomial(requests, weight))
        n = np.where(shadow, requests, requests - n2)
        worse = 10.0 if world.incidents and check % 360 < 60 else 1.0  # ten minutes in each hour
        e, e2 = rng.binomial(n, CHAMPION_ERRORS * worse), rng.binomial(n2, world.errors * worse)
        seen.n += n
        seen.n2 += n2
        seen.e += e
        seen.e2 += e2
        self.latencies(seen.latency, n - e, self.shares)
        self.latencies(seen.latency2, n2 - e2, self.shares2)
        labelled, labelled2 = rng.binomial(n, world.feedback), rng.binomial(n2, world.feedback)
        apart = ~shadow
        seen.labelled += labelled * apart
        seen.labelled2 += labelled2 * apart
        seen.wrong += rng.binomial(labelled * apart, CHAMPION_WRONG)
        seen.wrong2 += rng.binomial(labelled2 * apart, world.wrong)
        if shadow.any():
            pairs = requests * shadow
            seen.pairs += pairs
            seen.disagreed += rng.binomial(pairs, world.disagrees)
            seen.drift += rng.multinomial(pairs, self.drift)
            outcome = (world.won, 1 - world.won - world.lost, world.lost)
            seen.judged += rng.multinomial(labelled * shadow, outcome)
