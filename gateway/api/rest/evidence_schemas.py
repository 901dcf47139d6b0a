"""What checks and evaluations found, as the routes answer it."""

from pydantic import BaseModel, ConfigDict, Field

Interval = tuple[float, float]


class _Shown(BaseModel):
    """Read from a dataclass with the same fields."""

    model_config = ConfigDict(from_attributes=True)


class MetricVerdictResponse(_Shown):
    """One metric of one check."""

    metric: str = Field(description="Its name.", examples=["error_rate"])
    outcome: str = Field(description="Successful, Failed or Inconclusive.")
    champion: float | None = Field(description="The champion's value: a rate, or seconds.")
    challenger: float | None = Field(description="The challenger's value, or that of the pairs.")
    tolerated: float = Field(description="The difference up to which it passes.")
    champion_samples: int = Field(description="Answers that went into the champion's value.")
    challenger_samples: int = Field(description="Answers, or pairs, in the challenger's value.")
    chance_if_tolerable: float = Field(
        description="At most so likely to see this much against a challenger within tolerance."
    )
    chance_if_worse: float = Field(
        description="At most so likely to see this much for a challenger that is worse."
    )
    required: bool = Field(description="The step does not pass before it is Successful.")
    sentence: str = Field(description="The same for people.")
    on_fail: str = Field(description="What a failure does: rollback, hold or observe.")
    more_samples: int | None = Field(
        description="How many more samples the decision needs at the rates seen; null if it is "
        "decided, or no number would decide it."
    )


class VerdictResponse(_Shown):
    """One check of one step."""

    outcome: str = Field(description="Successful, Failed or Inconclusive.")
    stage: int = Field(description="Which strategy was judged, from 0.")
    step: int = Field(description="Which step of it, from 0.")
    at_s: float = Field(description="When, Unix seconds.")
    samples: int = Field(description="Requests of the challenger in the step.")
    metrics: list[MetricVerdictResponse] = Field(description="What each metric says.")
    sentence: str = Field(description="The reason for the outcome.")
    number: int = Field(description="Which check of the rollout, from 1.")
    held: bool = Field(description="A metric failed that does not roll back.")
    more_s: float | None = Field(
        description="In how many seconds the decision is due at the rate seen; null if it is "
        "decided, or that cannot be told."
    )
    notice: str = Field(description="That it will not be decided before its deadline.")


class CalibrationResponse(_Shown):
    """Whether scores mean what they say."""

    expected_error: float = Field(description="Mean distance of confidence and accuracy, 0 to 1.")
    brier: float = Field(description="Brier score over all classes, 0 to 2.")


class EvaluationDetails(_Shown):
    """What a version did on a labelled set."""

    images: int = Field(description="How many images.")
    right: int = Field(description="How many it got right.")
    accuracy: float = Field(description="Their ratio.")
    accuracy_interval: Interval = Field(description="Wilson's interval, 95 %.")
    recall: dict[int, float] = Field(description="By class, the share that was recognised.")
    confusion: list[tuple[int, int, int]] = Field(
        description="True class, answer, how often; without zeros."
    )
    calibration: CalibrationResponse | None = Field(
        description="Null if there were no scores, or they are no probabilities."
    )


class ComparisonResponse(_Shown):
    """Two versions on the same labelled images."""

    images: int = Field(description="How many images.")
    only_champion_right: int = Field(description="Those that only the champion got right.")
    only_challenger_right: int = Field(description="Those that only the challenger got right.")
    difference: float = Field(description="The challenger's accuracy minus the champion's.")
    interval: Interval = Field(description="Tango's score interval of the difference.")
    mcnemar_p: float = Field(description="Exact two-sided McNemar test of equal accuracies.")
    margin: float = Field(description="By how much the challenger may be worse.")
    confidence: float = Field(description="Of the interval.")
    outcome: str = Field(description="Successful, Failed or Inconclusive.")
    sentence: str = Field(description="The same for people.")
