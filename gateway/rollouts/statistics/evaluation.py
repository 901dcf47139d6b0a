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

from collections.abc import Sequence
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
UNJUDGED = -1
"""Stands in the place of an image's label where a version must not be judged on the image."""


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
        recall: By class that has images, the share of them that was recognised.
        confusion: True class, answer and how often, where that is not never, in order. Failed
            requests are in none of them.
        calibration: None if there were no scores, or they are no probabilities.
    """

    images: int
    right: int
    accuracy: float
    accuracy_interval: Interval
    recall: dict[int, float]
    confusion: tuple[tuple[int, int, int], ...]
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


@dataclass(frozen=True, slots=True)
class Scored:
    """
    What calibration needs of one image's scores.

    Attributes:
        confidence: The highest score, 0 to 1.
        distance: Squared distance from the true class's unit vector, 0 to 2.
    """

    confidence: float
    distance: float


def scored(truth: int, scores: npt.ArrayLike) -> Scored | None:
    """
    Reduce the scores of one image, shape [classes]; `truth` is its class, perhaps none of them.
    None if they are no probabilities.
    """
    row = np.asarray(scores, dtype=np.float64).reshape(-1)
    if not row.size or not abs(row.sum() - 1) <= 1e-3 or row.min() < -1e-6:
        return None
    of_truth = float(row[truth]) if truth < row.size else 0.0
    return Scored(float(row.max()), float((row**2).sum()) - 2 * of_truth + 1)


def evaluate(
    labels: npt.ArrayLike,
    answers: npt.ArrayLike,
    rows: Sequence[Scored | None] | None = None,
) -> Evaluation:
    """
    Describe one version on a labelled set.

    Args:
        labels: True classes; integers, shape [N], N ≥ 1. Images whose label is `UNJUDGED` are left
            out.
        answers: The version's answers; integers, shape [N]. -1 stands for a failed request.
        rows: Of every image's scores; if one is None there is no calibration.

    Raises:
        ValueError: Shapes do not fit, nothing is judged, or a label is below `UNJUDGED`.
    """
    truth, answered = _checked(labels, answers)
    if rows is not None:
        kept = np.asarray(labels, dtype=np.int64) != UNJUDGED
        rows = [row for row, judged in zip(rows, kept, strict=True) if judged]
    hit = truth == answered
    right = int(hit.sum())
    classes, place = np.unique(truth, return_inverse=True)
    recall = np.bincount(place, weights=hit) / np.bincount(place)
    pairs, counts = np.unique(
        np.stack([truth, answered], axis=1)[answered >= 0], axis=0, return_counts=True
    )
    return Evaluation(
        images=len(truth),
        right=right,
        accuracy=right / len(truth),
        accuracy_interval=wilson_interval(right, len(truth)),
        recall=dict(zip(classes.tolist(), recall.tolist(), strict=True)),
        confusion=tuple(
            (int(true), int(answer), int(count))
            for (true, answer), count in zip(pairs, counts, strict=True)
        ),
        calibration=None if rows is None else calibration(hit, rows),
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
        labels: True classes; integers, shape [N], N ≥ 1. Images whose label is `UNJUDGED` are left
            out.
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


def calibration(right: npt.ArrayLike, rows: Sequence[Scored | None]) -> Calibration | None:
    """
    Calibration of probabilities.

    Args:
        right: Whether the highest score is that of the true class; shape [N].
        rows: Of every image's scores.

    Returns:
        None if those of one image are no probabilities.

    Raises:
        ValueError: There is not one row for each image.
    """
    hit = np.asarray(right, dtype=bool)
    if len(hit) != len(rows):
        raise ValueError("There must be one row of scores for each image.")
    known = [row for row in rows if row is not None]
    if len(known) < len(rows):
        return None
    confidence = np.array([row.confidence for row in known])
    places = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gap = np.bincount(places, weights=hit - confidence, minlength=CALIBRATION_BINS)
    return Calibration(
        expected_error=float(np.abs(gap).sum() / len(hit)),
        brier=float(np.mean([row.distance for row in known])),
    )


def _checked(
    labels: npt.ArrayLike, answers: npt.ArrayLike
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    truth = np.asarray(labels, dtype=np.int64)
    answered = np.asarray(answers, dtype=np.int64)
    if truth.ndim != 1 or not len(truth) or truth.shape != answered.shape:
        raise ValueError("Labels and answers must be equally long and not empty.")
    judged = truth != UNJUDGED
    if not judged.any() or truth.min() < UNJUDGED:
        raise ValueError("Some label must be a class, and none may be below -1.")
    return truth[judged], answered[judged]
