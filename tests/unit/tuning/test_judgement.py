"""Which candidate wins, and when it is worth a change: the rules, on made-up measurements."""

import random

import pytest

from gateway.tuning.judgement import Decision, Figures, Measured, Objective, bounds, decide, rank

BALANCED, LATENCY, THROUGHPUT = Objective.BALANCED, Objective.LATENCY, Objective.THROUGHPUT


def figures(rate_per_s: float, p99_ms: float, *, spread: float = 0.01, rounds: int = 5) -> Figures:
    """Rounds around these values, evenly spread over `spread` in parts of them."""
    steps = [
        spread * (index / (rounds - 1) - 0.5) if rounds > 1 else 0.0 for index in range(rounds)
    ]
    return Figures(
        [
            {
                1: Measured(rate_per_s / 2, p99_ms / 1000 * (1 + step)),
                16: Measured(rate_per_s * (1 + step), p99_ms / 100),
            }
            for step in steps
        ]
    )


def test_balanced_takes_the_fastest_of_those_with_a_low_latency() -> None:
    """A p99 within a tenth of the lowest is as good; among those throughput decides."""
    found = {
        "lowest": figures(100, 10.0),
        "near": figures(180, 10.9),
        "far": figures(300, 20.0),
    }
    assert rank(found, BALANCED) == ["near", "lowest", "far"]
    assert rank(found, LATENCY)[0] == "lowest"
    assert rank(found, THROUGHPUT)[0] == "far"


def test_balanced_calls_near_what_noise_cannot_tell_apart() -> None:
    """Where the rounds differ by half, a latency a third higher is no reason to lose speed."""
    found = {"lowest": figures(100, 10.0, spread=0.5), "other": figures(180, 13.0, spread=0.5)}
    assert rank(found, BALANCED)[0] == "other"


@pytest.mark.parametrize("objective", list(Objective))
def test_noise_keeps_what_there_is(objective: Objective) -> None:
    """A gain smaller than the rounds differ among themselves changes nothing."""
    decision = decide(figures(100, 10, spread=0.4), figures(120, 8.5, spread=0.4), objective)
    assert not decision.replace
    assert "Keep what you have" in decision.reason


@pytest.mark.parametrize("objective", list(Objective))
def test_a_gain_beyond_the_noise_replaces(objective: Objective) -> None:
    """A gain in both, larger than what the rounds differ by, is taken, whatever is wanted."""
    assert decide(figures(100, 10), figures(120, 8.5), objective).replace


@pytest.mark.parametrize("objective", list(Objective))
def test_a_gain_too_small_to_matter_is_none(objective: Objective) -> None:
    """Two per cent are not worth a change, even where rounds do not differ at all."""
    assert not decide(figures(100, 10, spread=0), figures(102, 9.8, spread=0), objective).replace


def test_one_measure_is_not_paid_for_with_the_other() -> None:
    """Balanced refuses speed at the price of latency, and the reverse; who asks for one gets it."""
    present, fast, prompt = figures(100, 10), figures(150, 14), figures(70, 5)
    assert not decide(present, fast, BALANCED).replace
    assert not decide(present, prompt, BALANCED).replace
    assert decide(present, fast, THROUGHPUT).replace
    assert decide(present, prompt, LATENCY).replace


def test_balanced_takes_a_gain_in_latency_alone() -> None:
    """A much lower p99 at the same speed is better."""
    assert decide(figures(100, 10), figures(100, 6), BALANCED).replace


def test_a_single_round_decides_nothing() -> None:
    """Of one round nobody knows how far the next would differ."""
    present, winner = figures(100, 10, rounds=1), figures(300, 2, rounds=1)
    assert bounds([1.0]) == (float("-inf"), float("inf"))
    assert not decide(present, winner, THROUGHPUT).replace
    assert "unknown" in decide(present, winner, THROUGHPUT).reason


def test_one_hiccup_among_many_rounds_hides_nothing() -> None:
    """Of seven rounds the extremes are left out, of thirteen three of each; of six they count."""
    assert bounds([100, 101, 103, 101, 100, 30]) == (30, 103)
    assert bounds([100, 101, 103, 101, 100, 102, 30]) == (100, 102)
    assert bounds([float(value) for value in range(13)]) == (3, 9)


def test_a_gain_may_be_noisy_itself() -> None:
    """What is twenty times better differs by more than all there was, and is still far better."""
    present, winner = figures(100, 20, spread=0.1), figures(2000, 1, spread=1.8)
    for objective in Objective:
        assert decide(present, winner, objective).replace


@pytest.mark.parametrize("rounds", range(4, 16))
def test_equal_configurations_are_rarely_told_apart(rounds: int) -> None:
    """Of a thousand searches with two equal finalists, hardly one in fifty changes anything."""
    chance = random.Random(7)

    def measured() -> Figures:
        return Figures(
            [
                {1: Measured(50, 0.01), 16: Measured(100 * chance.lognormvariate(0, 0.2), 0.1)}
                for _ in range(rounds)
            ]
        )

    decisions: list[Decision] = [decide(measured(), measured(), THROUGHPUT) for _ in range(1000)]
    assert sum(decision.replace for decision in decisions) <= 25


def test_rounds_are_compared_by_their_medians() -> None:
    """One round that went wrong does not move a candidate."""
    rounds = [{1: Measured(rate, 0.01)} for rate in (100.0, 102.0, 5.0)]
    assert Figures(rounds).throughput_per_s == 100.0
