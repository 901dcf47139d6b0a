"""The whole search, with measurements and a clock of its own: what it tries, when it stops."""

import random
from collections import Counter
from collections.abc import Callable

import pytest

from gateway.tuning.candidates import Candidate, Space
from gateway.tuning.errors import BudgetTooSmall, PresentFails
from gateway.tuning.judgement import Measured, Objective, Round
from gateway.tuning.search import (
    LEAST_FINAL_ROUNDS,
    Budget,
    MeasurementFailed,
    Search,
    SearchResult,
)

PRESENT = Candidate(1, 1, None, None, 8)
SPACE = Space(4, instances=True, batching=True)


class Machine:
    """Candidates answer as they are told; a measurement takes 1 s, loading for it another."""

    def __init__(self, speed: Callable[[Candidate], float], *, noise: float = 0.01) -> None:
        self.now_s = 0.0
        self.measured: list[Candidate] = []
        self._loaded = PRESENT
        self._speed = speed
        self._chance = random.Random(3)
        self._noise = noise

    async def measure(self, candidate: Candidate) -> Round:
        """Take a second of the clock, or two."""
        if candidate not in {PRESENT, self._loaded}:
            self.now_s += 1.0
            self._loaded = candidate
        self.now_s += 1.0
        self.measured.append(candidate)
        rate = self._speed(candidate) * self._chance.uniform(1 - self._noise, 1 + self._noise)
        return {1: Measured(rate / 4, 4 / rate), 16: Measured(rate, 16 / rate)}

    async def search(
        self, budget_s: float, objective: Objective = Objective.BALANCED
    ) -> SearchResult:
        """Search for so long."""
        budget = Budget(budget_s, lambda: self.now_s)
        return await Search(
            PRESENT, SPACE, objective, self.measure, 1.0, budget, shuffle=self._chance.shuffle
        ).run()


def _prefers(best: Candidate) -> Callable[[Candidate], float]:
    """Give a speed that is the greater the more a candidate agrees with the best one."""

    def speed(candidate: Candidate) -> float:
        return 100.0 * (
            1
            + (candidate.instances == best.instances)
            + (candidate.threads == best.threads)
            + (candidate.queue_delay_us == best.queue_delay_us)
        )

    return speed


@pytest.mark.parametrize("objective", list(Objective))
async def test_the_best_is_found_and_replaces(objective: Objective) -> None:
    """First the placement, then what can be changed of it: the best of both is the winner."""
    best = Candidate(2, 2, None, 200, 8)
    result = await Machine(_prefers(best)).search(200, objective)
    assert result.winner == best
    assert result.decision.replace
    assert result.left_out == 0


async def test_a_batcher_that_hurts_goes_first() -> None:
    """Where the present batcher costs more than any placement gains, little time is enough."""
    present = Candidate(1, 1, None, 20_000, 8)
    machine = Machine(lambda c: 10.0 + c.instances if c.queue_delay_us == 20_000 else 100.0)
    budget = Budget(30, lambda: machine.now_s)
    search = Search(present, SPACE, Objective.BALANCED, machine.measure, 1.0, budget)
    result = await search.run()
    assert result.winner.queue_delay_us != 20_000
    assert result.decision.replace


async def test_noise_is_no_reason_to_change() -> None:
    """Where all candidates are equal but for noise, the present configuration stays."""
    result = await Machine(lambda _: 100.0, noise=0.3).search(120)
    assert not result.decision.replace


async def test_the_present_one_stays_if_it_is_the_best() -> None:
    """Nothing better is there: the winner is what there is, and it was measured in every round."""
    result = await Machine(_prefers(PRESENT)).search(120)
    assert result.winner == PRESENT
    assert not result.decision.replace
    assert set(result.final) == {PRESENT}


@pytest.mark.parametrize("budget_s", [14, 20, 60, 300])
async def test_the_budget_is_kept(budget_s: float) -> None:
    """The search ends in time, within one round of what it planned, and tells what it left out."""
    machine = Machine(_prefers(Candidate(4, 1, None, None, 8)))
    result = await machine.search(budget_s)
    assert machine.now_s <= budget_s + 2
    assert len(result.final[PRESENT].rounds) >= LEAST_FINAL_ROUNDS
    assert (result.left_out > 0) == (budget_s < 300)


async def test_too_little_time_is_said_at_once() -> None:
    """Less time than one comparison takes is an error after the first measurement."""
    machine = Machine(lambda _: 100.0)
    with pytest.raises(BudgetTooSmall, match="12 s more"):
        await machine.search(6)
    assert len(machine.measured) == 1


async def test_the_worse_half_is_dropped() -> None:
    """Good candidates are measured more often than bad ones, and all of them in the first round."""
    machine = Machine(_prefers(Candidate(4, 2, None, None, 8)))
    await machine.search(300)
    counted = Counter(machine.measured)
    placements = [c for c in SPACE.placements(PRESENT) if c != PRESENT]
    assert all(counted[candidate] >= 1 for candidate in placements)
    assert counted[Candidate(4, 2, None, None, 8)] > counted[Candidate(1, 8, None, None, 8)]
    assert min(counted[candidate] for candidate in placements) == 1


async def test_the_final_is_taken_in_turn() -> None:
    """The rounds that decide alternate between the two, so that the machine's moods hit both."""
    best = Candidate(4, 1, None, None, 8)
    machine = Machine(_prefers(best))
    result = await machine.search(60)
    rounds = len(result.final[best].rounds)
    last = machine.measured[-2 * rounds :]
    pairs = [set(last[index : index + 2]) for index in range(0, len(last), 2)]
    assert pairs == [{PRESENT, best}] * rounds


async def test_a_candidate_that_fails_is_told_and_left() -> None:
    """A configuration that does not load is out of the search, with its reason."""
    bad = Candidate(4, 1, None, None, 8)
    machine = Machine(_prefers(bad))

    async def measure(candidate: Candidate) -> Round:
        if candidate == bad:
            raise MeasurementFailed("no memory")
        return await machine.measure(candidate)

    budget = Budget(100, lambda: machine.now_s)
    result = await Search(PRESENT, SPACE, Objective.BALANCED, measure, 1.0, budget).run()
    assert result.failed == {bad: "no memory"}
    assert bad not in result.figures
    assert result.winner != bad


async def test_a_present_configuration_that_fails_is_an_error() -> None:
    """Without the present configuration there is nothing to compare with."""

    async def measure(_candidate: Candidate) -> Round:
        raise MeasurementFailed("it is broken")

    with pytest.raises(PresentFails, match="broken"):
        await Search(
            PRESENT, SPACE, Objective.BALANCED, measure, 1.0, Budget(100, lambda: 0.0)
        ).run()
