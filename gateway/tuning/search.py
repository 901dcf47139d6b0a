"""
The search: in stages, each by successive halving, within a budget of time.

    unbatched    the present configuration without its batcher, if it has one: seldom worse
    placements   instances × threads
    variants     of the best placement: dynamic batching, larger batches, spinning
    final        the present configuration and the winner, in turn, until the time is over

In a stage every candidate is measured in one round, the worse half is dropped, the rest is measured
again, more than once where there is time, and so on until one is left. The present configuration is
in every round, as the measure of all others. Where the time does not allow so many candidates the
likeliest come first, and how many were left out is told.

Time and measuring come in from outside, so that the whole search runs in tests without either.
"""

import random
import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from gateway.tuning.candidates import Candidate, Space, without_repeats
from gateway.tuning.errors import BudgetTooSmall, PresentFails
from gateway.tuning.judgement import Decision, Figures, Objective, Round, decide, rank

# Parts of the time that is left when a stage begins; the final has what is left after them.
_UNBATCHED_SHARE, _PLACEMENTS_SHARE, _VARIANTS_SHARE = 0.1, 0.6, 0.7
# The final has at least so many rounds, or the search does not begin.
LEAST_FINAL_ROUNDS = 4
# Beyond, more rounds say nothing new: of one half of a stage, and of the final.
_MOST_ROUNDS, _MOST_FINAL_ROUNDS = 4, 15


class MeasurementFailed(Exception):
    """A candidate does not load, or fails on the input; the text says why."""


Measure = Callable[[Candidate], Awaitable[Round]]
"""Measures a candidate once; loads it before, unless it is loaded. Raises MeasurementFailed."""


@dataclass(slots=True)
class Budget:
    """
    How much time there is.

    Attributes:
        deadline_s: When the search must be over, on `clock`.
        clock: Tells the time, seconds.
    """

    deadline_s: float
    clock: Callable[[], float]

    @property
    def left_s(self) -> float:
        """Seconds until the deadline; less than 0 after it."""
        return self.deadline_s - self.clock()


@dataclass(frozen=True, slots=True)
class SearchResult:
    """
    What a search found.

    Attributes:
        present, winner: The same if nothing better was found.
        figures: Of every candidate that was measured, in the order of their first rounds.
        final: Of present and winner, from the rounds that decided.
        failed: Why candidates could not be measured.
        left_out: How many candidates there was no time for.
    """

    present: Candidate
    winner: Candidate
    decision: Decision
    figures: dict[Candidate, Figures]
    final: dict[Candidate, Figures]
    failed: dict[Candidate, str]
    left_out: int


@dataclass(slots=True)
class Search:
    """
    One search.

    Attributes:
        present: What there is; it is loaded, and measured first, to learn what that costs.
        space: What may be varied.
        measure: Measures one candidate once.
        load_s: What loading one costs, seconds.
        budget: The time.
        shuffle: Shuffles a list in place.
        on_round: Is told what is being measured, for people.
    """

    present: Candidate
    space: Space
    objective: Objective
    measure: Measure
    load_s: float
    budget: Budget
    shuffle: Callable[[list[Candidate]], None] = random.shuffle
    on_round: Callable[[str], None] = lambda _text: None
    _rounds: dict[Candidate, list[Round]] = field(default_factory=dict)
    _failed: dict[Candidate, str] = field(default_factory=dict)
    _costs_s: dict[bool, list[float]] = field(default_factory=lambda: {True: [], False: []})
    _left_out: int = 0

    async def run(self) -> SearchResult:
        """
        Search.

        Raises:
            BudgetTooSmall: There is no time to compare with even one other candidate.
            PresentFails: The present configuration does not load or does not answer.
        """
        await self._measure(self.present)
        self._check_budget()
        plain = self.space.unbatched(self.present)
        best = await self._stage("without a batcher", plain, _UNBATCHED_SHARE)
        placements = self.space.placements(best)
        best = await self._stage("placement", [best, *placements], _PLACEMENTS_SHARE)
        variants = self.space.variants(best)
        best = await self._stage("variant", [best, *variants], _VARIANTS_SHARE)
        final = await self._final(best)
        figures = {candidate: Figures(rounds) for candidate, rounds in self._rounds.items()}
        if best not in final:  # it failed at the last
            best = self.present
        return SearchResult(
            present=self.present,
            winner=best,
            decision=decide(final[self.present], final[best], self.objective),
            figures=figures,
            final=final,
            failed=self._failed,
            left_out=self._left_out,
        )

    async def _stage(self, name: str, candidates: Sequence[Candidate], share: float) -> Candidate:
        """Halve candidates until one is left; return it, or the present one if that is better."""
        began_s = self.budget.clock()
        share_s = share * max(0.0, self._left_for_search_s)
        waiting = without_repeats(candidates, but=[self.present, *self._failed])
        alive: list[Candidate] = []
        # The first round of all takes as long as the ones of the better half, and so on, together.
        while waiting and (not alive or self.budget.clock() < began_s + share_s / 2):
            left_s = began_s + share_s / 2 - self.budget.clock() - self._measure_s
            affordable = max(1, int(left_s / self._cost_s))
            await self._round(name, [self.present, *waiting[:affordable]])
            alive += waiting[:affordable]
            waiting = waiting[affordable:]
        self._left_out += len(waiting)
        while len(alive := self._measured(alive)) > 1:
            alive = self._ranked(alive)[: len(alive) // 2]
            ends_s = (self.budget.clock() + began_s + share_s) / 2
            for _ in range(_MOST_ROUNDS if len(alive) > 1 else 0):
                if self.budget.clock() >= ends_s:
                    break
                await self._round(name, [self.present, *self._measured(alive)])
        return self._ranked([self.present, *alive])[0]

    async def _final(self, winner: Candidate) -> dict[Candidate, Figures]:
        """Measure the present candidate and the winner in turn; only these rounds count."""
        pair = list(dict.fromkeys([self.present, winner]))
        before = {candidate: len(self._rounds.get(candidate, ())) for candidate in pair}
        for taken in range(_MOST_FINAL_ROUNDS):
            enough = taken >= LEAST_FINAL_ROUNDS or (len(pair) == 1 and taken > 0)
            if enough and self.budget.left_s < len(pair) * self._measure_s:
                break
            if len(pair) == 1 and taken >= LEAST_FINAL_ROUNDS:
                break  # nothing is compared
            await self._round("final", pair)
            pair = [candidate for candidate in pair if candidate not in self._failed]
        return {
            candidate: Figures(self._rounds[candidate][before[candidate] :])
            for candidate in pair
            if len(self._rounds.get(candidate, ())) > before[candidate]
        }

    async def _round(self, name: str, candidates: list[Candidate]) -> None:
        order = list(candidates)
        self.shuffle(order)
        for candidate in order:
            self.on_round(f"{name}: {candidate}")
            await self._measure(candidate)

    async def _measure(self, candidate: Candidate) -> None:
        began_s = self.budget.clock()
        try:
            found = await self.measure(candidate)
        except MeasurementFailed as error:
            if candidate == self.present:
                raise PresentFails(f"The present configuration cannot be measured: {error}") from (
                    error
                )
            self._failed[candidate] = str(error)
            return
        self._rounds.setdefault(candidate, []).append(found)
        self._costs_s[candidate == self.present].append(self.budget.clock() - began_s)

    def _measured(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        return [candidate for candidate in candidates if candidate not in self._failed]

    def _ranked(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        figures = {c: Figures(self._rounds[c]) for c in candidates}
        return rank(figures, self.objective)

    @property
    def _measure_s(self) -> float:
        """What it takes to measure a candidate that is loaded, seconds."""
        return statistics.median(self._costs_s[True])

    @property
    def _cost_s(self) -> float:
        """What it takes to load a candidate and to measure it once, seconds."""
        seen = self._costs_s[False]
        return statistics.median(seen) if seen else self.load_s + self._measure_s

    @property
    def _final_s(self) -> float:
        """What the shortest final takes, seconds."""
        return self.load_s + 2 * LEAST_FINAL_ROUNDS * self._measure_s

    @property
    def _left_for_search_s(self) -> float:
        return self.budget.left_s - self._final_s

    def _check_budget(self) -> None:
        needed_s = self._measure_s + self._cost_s + self._final_s
        if self.budget.left_s < needed_s:
            raise BudgetTooSmall(
                f"To compare with one other configuration takes {needed_s:.0f} s more, and "
                f"{max(0.0, self.budget.left_s):.0f} s are left. Allow more time (--budget-s), or "
                "fewer numbers of callers (--callers)."
            )
