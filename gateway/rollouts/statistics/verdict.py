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
        on_fail: What a failure does: roll back, hold the rollout, or nothing.
        more_samples: How many more samples of the challenger the decision needs, if the rates stay
            as they are; None where it is decided, or no number would decide it.
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
    on_fail: str = "rollback"
    more_samples: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict(Stored):
    """
    One check of one step.

    Attributes:
        outcome: What follows from all metrics.
        stage, step: Which step was judged.
        at_s: When, Unix seconds; for people only.
        samples: Requests of the challenger in the step.
        metrics: Each metric's verdict.
        sentence: The reason for the outcome.
        number: Counts the checks of a rollout from 1: a verdict that arrives twice, or late,
            changes nothing.
        held: A metric failed that does not roll back: a human should look at it, unless labels
            overrule it.
        more_s: In how many seconds the decision is due at the rate seen; None where it is decided,
            or cannot be told.
        notice: That it will not be decided before its deadline, and what would help; "" if it will.
    """

    outcome: Outcome
    stage: int
    step: int
    at_s: float
    samples: int
    metrics: tuple[MetricVerdict, ...]
    sentence: str
    number: int = 0
    held: bool = False
    more_s: float | None = None
    notice: str = ""

    def shows(self, metric: str) -> bool:
        """Whether one metric is Successful."""
        return any(
            each.metric == metric and each.outcome is Outcome.SUCCESSFUL for each in self.metrics
        )
