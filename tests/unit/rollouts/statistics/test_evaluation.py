import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gateway.rollouts.statistics.evaluation import (
    UNJUDGED,
    Comparison,
    Evaluation,
    calibration,
    compare,
    evaluate,
    scored,
)
from gateway.rollouts.statistics.intervals import mcnemar_exact, tango_interval, wilson_interval
from gateway.rollouts.statistics.verdict import Outcome


def test_tango_interval_of_the_airway_study() -> None:
    """Bentur et al. 2009 as published by Fagerland, Lydersen and Laake (2014): -0.517 to -0.026."""
    assert tango_interval(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)


def test_mcnemar_exact_of_the_airway_study() -> None:
    """The same study's exact conditional McNemar test: p = 0.0703."""
    assert mcnemar_exact(1, 7) == pytest.approx(0.0703, abs=5e-5)


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_exact_is_the_binomial_test(one: int, other: int) -> None:
    """For any counts it agrees with scipy's exact two-sided binomial test of a fair coin."""
    expected = stats.binomtest(one, one + other, 0.5).pvalue if one + other else 1.0
    assert mcnemar_exact(one, other) == pytest.approx(expected, rel=1e-9)


@given(st.integers(0, 200), st.integers(1, 200))
def test_wilson_interval_is_scipys(hits: int, more: int) -> None:
    """For any counts it agrees with scipy's Wilson interval."""
    trials = hits + more
    expected = stats.binomtest(hits, trials).proportion_ci(method="wilson")
    assert wilson_interval(hits, trials) == pytest.approx(tuple(expected), abs=1e-9)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 200))
def test_tango_interval_holds_the_estimate_and_is_mirrored(
    first: int, second: int, same: int
) -> None:
    """The observed difference lies inside, and swapping the two mirrors the interval."""
    pairs = max(1, first + second + same)
    low, high = tango_interval(first, second, pairs)
    assert -1 <= low <= (first - second) / pairs <= high <= 1
    assert tango_interval(second, first, pairs) == pytest.approx((-high, -low), abs=1e-9)


def test_tango_interval_covers_the_truth() -> None:
    """In simulation the 95 % interval covers the true difference in at least 94 % of the sets."""
    rng = np.random.default_rng(3)
    lost, won, images = 0.04, 0.02, 500
    draws = rng.multinomial(images, [won, lost, 1 - won - lost], 2000)
    covered = [
        low <= won - lost <= high
        for low, high in (tango_interval(int(b), int(c), images) for b, c, _ in draws)
    ]
    assert 0.94 <= np.mean(covered) <= 0.97


def paired(images: int, lost: int, won: int) -> Comparison:
    labels = np.zeros(images, dtype=int)
    champion, challenger = labels.copy(), labels.copy()
    challenger[:lost] = 1
    champion[lost : lost + won] = 1
    return compare(labels, champion, challenger)


@pytest.mark.parametrize(
    ("images", "lost", "won", "outcome"),
    [
        (765, 0, 0, Outcome.SUCCESSFUL),
        (764, 0, 0, Outcome.INCONCLUSIVE),
        (2000, 10, 60, Outcome.SUCCESSFUL),
        (2000, 140, 40, Outcome.FAILED),
        (200, 6, 4, Outcome.INCONCLUSIVE),
    ],
)
def test_gate_needs_evidence_both_ways(images: int, lost: int, won: int, outcome: Outcome) -> None:
    """Half a point at 95 %: shown, refuted, or too small a set to tell (765 equal images)."""
    result = paired(images, lost, won)
    assert result.outcome is outcome
    assert result.difference == pytest.approx((won - lost) / images)
    assert f"{images:,} images" in result.sentence


def test_evaluation_describes_a_version() -> None:
    """Accuracy, recall per class, confusion; failed requests (-1) count as wrong."""
    result = evaluate([0, 0, 1, 1, 1], [0, 1, 1, 7, -1])
    assert (result.images, result.right, result.accuracy) == (5, 2, 0.4)
    assert result.recall == {0: 0.5, 1: 1 / 3}
    assert result.confusion == ((0, 0, 1), (0, 1, 1), (1, 1, 1), (1, 7, 1))
    assert result.calibration is None


def test_calibration_of_known_scores() -> None:
    """Scores of 0.8 that are right half the time are 0.3 off; Brier is a mean squared distance."""
    rows = [scored(0, [0.8, 0.2]), scored(1, [0.8, 0.2])]
    result = calibration([True, False], rows)
    assert result is not None
    assert result.expected_error == pytest.approx(0.3)
    assert result.brier == pytest.approx((0.08 + 1.28) / 2)


def test_logits_have_no_calibration() -> None:
    """Scores that are no probabilities are not judged as if they were."""
    assert scored(0, [4.0, -1.0]) is None
    assert scored(0, [float("nan"), 0.0]) is None
    assert calibration([True, True], [scored(0, [1.0]), None]) is None


def test_a_large_class_costs_no_more_than_a_small_one() -> None:
    """What is stored grows with the images and not with the number of classes."""
    result = evaluate([999_999, 0], [3, 0])
    assert result.confusion == ((0, 0, 1), (999_999, 3, 1))
    assert result.recall == {0: 1.0, 999_999: 0.0}
    assert len(json.dumps(result.to_json())) < 400


@pytest.mark.parametrize(
    ("labels", "answers"), [([], []), ([0, 1], [0]), ([-2, 0], [0, 0]), ([-1], [0])]
)
def test_sets_that_do_not_fit_are_refused(labels: list[int], answers: list[int]) -> None:
    """An empty set, unequal lengths and labels that are no class are errors."""
    with pytest.raises(ValueError, match=r"Labels|label"):
        evaluate(labels, answers)


def test_images_that_calibrated_are_not_judged() -> None:
    """Where a label is -1 the image counts for nothing, alone and beside the champion."""
    rows = [scored(0, [0.9, 0.1]), None, scored(1, [0.2, 0.8])]
    assert evaluate([0, UNJUDGED, 1], [0, 1, 1], rows) == evaluate([0, 1], [0, 1], rows[::2])
    labels, champion, challenger = [0, UNJUDGED, 1], [0, 0, 1], [1, 1, 1]
    assert compare(labels, champion, challenger) == compare([0, 1], [0, 1], [1, 1])


def test_results_round_trip_through_json() -> None:
    """Both results are read back as they were written."""
    evaluation = evaluate([0, 1], [0, 1], [scored(0, [0.9, 0.1]), scored(1, [0.2, 0.8])])
    comparison = paired(100, 3, 2)
    assert Evaluation.from_json(json.loads(json.dumps(evaluation.to_json()))) == evaluation
    assert Comparison.from_json(json.loads(json.dumps(comparison.to_json()))) == comparison
