"""
A version on a labelled set, and beside the champion on the same images.

Alone: accuracy, recall per class, the confusion matrix, and calibration (does a score of 0.9 mean
right nine times in ten?). Beside the champion only the images on which exactly one of the two is
right tell anything (McNemar); the difference of accuracies and its 95 % score interval decide
whether a rollout may begin.

The gate: "not worse than the champion by more than 0.5 points at 95 %". Successful if the whole
interval lies above -0.5 points, Failed if it lies below, else Inconclusive: the set is too small to
tell. Even without any difference 95 % needs 765 images (z² (1 - m) / m for a margin m), and more
the more often the two disagree.

This is looked at once for a version and a set, so a fixed-sample interval is right here; traffic
that is looked at again and again is `analysis`'s.

Sources: `intervals.py`; Guo et al., "On calibration of modern neural networks" (ICML 2017; 15 equal
bins).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gateway.rollouts.statistics.intervals import (
    CONFIDENCE,
    Interval,
    mcnemar_exact,
    tango_interval,
    wilson_interval,
)
from gateway.rollouts.statistics.verdict import Outcome
from gateway.rollouts.stored import Stored

MARGIN = 0.005
CALIBRATION_BINS = 15


@dataclass(frozen=True, slots=True)
class Calibration:
    """
    Whether scores mean what they say.

    Attributes:
        expected_error: Mean distance of confidence and accuracy over 15 equal bins (ECE), 0 to 1.
        brier: Mean squared distance of the score vector from the true class's unit vector, 0 to 2.
    """

    expected_error: float
    brier: float


@dataclass(frozen=True, slots=True)
class Evaluation(Stored):
    """
    One version on one labelled set.

    Attributes:
        images: How many.
        right: How many it got right.
        accuracy: Their ratio.
        accuracy_interval: Wilson's interval, 95 %.
        recall: For each class, the share of its images that were recognised; None if it has none.
        confusion: Row: true class; column: answer. Answers outside the classes are in no column.
        calibration: None if there were no scores, or they are no probabilities.
    """

    images: int
    right: int
    accuracy: float
    accuracy_interval: Interval
    recall: tuple[float | None, ...]
    confusion: tuple[tuple[int, ...], ...]
    calibration: Calibration | None


@dataclass(frozen=True, slots=True)
class Comparison(Stored):
    """
    Two versions on the same labelled images, and whether a rollout may begin.

    Attributes:
        images: How many.
        only_champion_right: Images that the champion got right and the challenger wrong.
        only_challenger_right: Images the other way round.
        difference: Challenger's accuracy minus the champion's.
        interval: Tango's score interval for it.
        mcnemar_p: Exact two-sided McNemar test of equal accuracies.
        margin: By how much the challenger may be worse.
        confidence: Of the interval.
        outcome: Whether "not worse than the margin" is shown, refuted or open.
        sentence: The same for people.
    """

    images: int
    only_champion_right: int
    only_challenger_right: int
    difference: float
    interval: Interval
    mcnemar_p: float
    margin: float
    confidence: float
    outcome: Outcome
    sentence: str


def evaluate(
    labels: npt.ArrayLike,
    answers: npt.ArrayLike,
    scores: npt.ArrayLike | None = None,
    *,
    classes: int,
) -> Evaluation:
    """
    Describe one version on a labelled set.

    Args:
        labels: True classes, 0 to classes - 1; integers, shape [N], N ≥ 1.
        answers: The version's answers; integers, shape [N]. -1 stands for a failed request.
        scores: Probabilities of the classes, shape [N, classes]; rows that do not sum to 1 (logits,
            for example) give no calibration.
        classes: How many classes there are.

    Raises:
        ValueError: Shapes do not fit, the set is empty or a label is no class.
    """
    truth, answered = _checked(labels, answers)
    if truth.min() < 0 or truth.max() >= classes:
        raise ValueError(f"Labels must lie between 0 and {classes - 1}.")
    known = (answered >= 0) & (answered < classes)
    confusion = np.bincount(
        truth[known] * classes + answered[known], minlength=classes * classes
    ).reshape(classes, classes)
    support = np.bincount(truth, minlength=classes)
    right = int(np.trace(confusion))
    return Evaluation(
        images=len(truth),
        right=right,
        accuracy=right / len(truth),
        accuracy_interval=wilson_interval(right, len(truth)),
        recall=tuple(
            int(hits) / int(of) if of else None
            for hits, of in zip(np.diag(confusion), support, strict=True)
        ),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        calibration=None if scores is None else calibration(truth, scores),
    )


def compare(
    labels: npt.ArrayLike,
    champion: npt.ArrayLike,
    challenger: npt.ArrayLike,
    *,
    margin: float = MARGIN,
    confidence: float = CONFIDENCE,
) -> Comparison:
    """
    Compare two versions on the same labelled images and decide whether a rollout may begin.

    Args:
        labels: True classes; integers, shape [N], N ≥ 1.
        champion: Its answers; integers, shape [N].
        challenger: Its answers; integers, shape [N].
        margin: By how much the challenger's accuracy may be lower; 0.005 is half a point.
        confidence: Of the two-sided interval.

    Raises:
        ValueError: Shapes do not fit or the set is empty.
    """
    truth, first = _checked(labels, champion)
    _, second = _checked(labels, challenger)
    only_champion = int(np.sum((first == truth) & (second != truth)))
    only_challenger = int(np.sum((first != truth) & (second == truth)))
    images = len(truth)
    interval = tango_interval(only_challenger, only_champion, images, confidence)
    if interval[0] >= -margin:
        outcome, meaning = Outcome.SUCCESSFUL, "it is not worse than allowed"
    elif interval[1] < -margin:
        outcome, meaning = Outcome.FAILED, "it is worse than allowed"
    else:
        outcome, meaning = Outcome.INCONCLUSIVE, "the set is too small to tell"
    difference = (only_challenger - only_champion) / images
    return Comparison(
        images=images,
        only_champion_right=only_champion,
        only_challenger_right=only_challenger,
        difference=difference,
        interval=interval,
        mcnemar_p=mcnemar_exact(only_champion, only_challenger),
        margin=margin,
        confidence=confidence,
        outcome=outcome,
        sentence=(
            f"On {images:,} images the challenger's accuracy differs by {difference * 100:+.2f} "
            f"points from the champion's ({confidence:.0%} interval {interval[0] * 100:+.2f} to "
            f"{interval[1] * 100:+.2f}); {margin * 100:g} points less are allowed: {meaning}."
        ),
    )


def calibration(labels: npt.ArrayLike, scores: npt.ArrayLike) -> Calibration | None:
    """
    Calibration of probabilities.

    Args:
        labels: True classes; integers, shape [N].
        scores: Shape [N, classes].

    Returns:
        None if a row is no probability distribution.

    Raises:
        ValueError: Shapes do not fit.
    """
    truth = np.asarray(labels, dtype=np.int64)
    rows = np.asarray(scores, dtype=np.float64)
    if rows.ndim != 2 or len(rows) != len(truth):
        raise ValueError("Scores must have one row for each label.")
    if not np.allclose(rows.sum(axis=1), 1, atol=1e-3) or rows.min() < -1e-6:
        return None
    confidence = rows.max(axis=1)
    right = rows.argmax(axis=1) == truth
    places = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gap = np.bincount(places, weights=right - confidence, minlength=CALIBRATION_BINS)
    unit = np.zeros_like(rows)
    unit[np.arange(len(truth)), truth] = 1
    return Calibration(
        expected_error=float(np.abs(gap).sum() / len(truth)),
        brier=float(((rows - unit) ** 2).sum(axis=1).mean()),
    )


def _checked(
    labels: npt.ArrayLike, answers: npt.ArrayLike
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    truth = np.asarray(labels, dtype=np.int64)
    answered = np.asarray(answers, dtype=np.int64)
    if truth.ndim != 1 or not len(truth) or truth.shape != answered.shape:
        raise ValueError("Labels and answers must be equally long and not empty.")
    return truth, answered
