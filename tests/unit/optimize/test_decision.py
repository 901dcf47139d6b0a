"""Which candidate is worth it."""

import pytest

from gateway.optimize.decision import Row, decide


def _row(name: str, agreement: float, speedup: float) -> Row:
    return Row(name, agreement, None, 1.0 / speedup, speedup, 1000)


@pytest.mark.parametrize(
    ("rows", "chosen", "said"),
    [
        ([], None, "No candidate could be made"),
        ([_row("a", 1.0, 0.7), _row("b", 1.0, 0.9)], None, "slower"),
        ([_row("a", 1.0, 1.05)], None, "not worth it"),
        ([_row("a", 0.9, 2.0), _row("b", 0.97, 1.5)], None, "b agrees on 97.0%"),
        ([_row("a", 0.99, 1.2), _row("b", 0.98, 2.0)], 1, "b is 2.00 times as fast"),
        ([_row("a", 0.99, 1.98), _row("b", 0.98, 2.0)], 0, "a is 1.98 times as fast"),
        ([_row("a", 0.99, 1.05), _row("b", 0.5, 3.0)], None, "not worth it"),
    ],
)
def test_the_fastest_that_agrees(rows: list[Row], chosen: int | None, said: str) -> None:
    """Agreement first, then speed; within 3 % the one that agrees more; else nothing, and why."""
    decision = decide(rows, least_agreement=0.98, least_speedup=1.1)
    assert decision.chosen == chosen
    assert said in decision.reason
