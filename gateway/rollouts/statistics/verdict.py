"""
What an analysis says: an outcome, the numbers behind it, and a sentence for people.

Shared by the analysis of live traffic, the evaluation on a labelled set and the rollout that acts
on them. Words as in Argo Rollouts: Successful, Failed, Inconclusive. No data is Inconclusive.
"""

from dataclasses import dataclass
from enum import StrEnum

from gateway.rollouts.stored import Stored


class Outcome(StrEnum):
    """What the evidence supports so far."""

    SUCCESSFUL = "Successful"
    FAILED = "Failed"
    INCONCLUSIVE = "Inconclusive"


@dataclass(frozen=True, slots=True)
class MetricVerdict:
    """
    One metric of one check.

    Attributes:
        metric: Its name, for example "error_rate".
        outcome: What the evidence on this metric supports.
        champion: The champion's value (rate or seconds); None where it has none.
        challenger: The challenger's value, or the value of the paired comparison.
        tolerated: The difference (or ratio minus one, or rate) up to which a challenger passes.
        champion_samples: Answers that went into `champion`.
        challenger_samples: Answers, or pairs, that went into `challenger`.
        chance_if_tolerable: At most this likely to see so much evidence against a challenger that
            is within tolerance, however often one looks (an always-valid p-value).
        chance_if_worse: At most this likely to see so much evidence for a challenger that is worse
            than tolerated.
        required: The step cannot pass before this metric is Successful.
        sentence: The same for people.
    """

    metric: str
    outcome: Outcome
    champion: float | None
    challenger: float | None
    tolerated: float
    champion_samples: int
    challenger_samples: int
    chance_if_tolerable: float
    chance_if_worse: float
    required: bool
    sentence: str


@dataclass(frozen=True, slots=True)
class Verdict(Stored):
    """
    One check of one step. `stage` and `step` say which, `at_s` (Unix seconds) when: with them a
    verdict that arrives twice, or late, changes nothing.
    """

    outcome: Outcome
    stage: int
    step: int
    at_s: float
    samples: int
    metrics: tuple[MetricVerdict, ...]
    sentence: str
