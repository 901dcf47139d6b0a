"""What the routes of rollouts take and answer."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.api.rest.evidence_schemas import ComparisonResponse, VerdictResponse
from gateway.api.rest.json_types import Number, Truth, Whole
from gateway.errors import RolloutInvalid
from gateway.rollouts.state import plan as bounds
from gateway.rollouts.state.plan import LabelKind, Labels, Plan, Stage
from gateway.rollouts.statistics.metrics import DEFAULT_METRICS, Metric, OnFail

StrategyName = Literal["shadow", "canary", "ab"]


class StageRequest(BaseModel):
    """One strategy and its steps."""

    strategy: StrategyName = Field(description="How the challenger meets traffic.")
    steps: list[Number] | None = Field(
        None, description="Weights, or for shadow shares that are mirrored, 0 to 100."
    )


class MetricRequest(BaseModel):
    """What differs from a metric's defaults."""

    model_config = ConfigDict(extra="forbid")

    tolerated: Number | None = Field(None, description="The difference up to which it passes.")
    min_samples: Whole | None = Field(None, ge=1, description="Not judged before so many.")
    required: Truth | None = Field(None, description="A step does not pass without it.")
    percentile: Number | None = Field(None, description="Of the latency.")
    floor_s: Number | None = Field(
        None, description="Of a time: so many seconds more are tolerated, whatever the ratio."
    )
    on_fail: Literal["rollback", "hold", "observe"] | None = Field(
        None, description="What a failure does: roll back, wait for a human, or nothing."
    )


class LabelsRequest(BaseModel):
    """What is expected of feedback."""

    model_config = ConfigDict(extra="forbid")

    delay_s: Number = Field(0.0, description="How long after its answer a label comes, in seconds.")
    fraction: Number = Field(0.1, description="The share of the answers that get one, 0 to 1.")
    kind: Literal["sample", "complaints"] = Field(
        "sample", description="A sample of all answers, or complaints about wrong ones."
    )


class RolloutRequest(BaseModel):
    """What to do to replace the champion."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "version": 2,
                    "strategy": ["shadow", "canary"],
                    "steps": [5, 25, 50, 100],
                    "interval_s": 10,
                    "min_samples": 200,
                    "auto_promote": True,
                }
            ]
        },
    )

    version: Whole = Field(ge=1, description="The challenger.")
    strategy: StrategyName | list[StrategyName] = Field(
        "canary", description="One strategy, or several, one after the other."
    )
    steps: list[Number] | None = Field(
        None, description="Steps of the (last) strategy; default: shadow 100, canary 1, 5, 25, 50."
    )
    stages: list[StageRequest] | None = Field(
        None, description="Instead of `strategy` and `steps`: each strategy with its own steps."
    )
    interval_s: Number = Field(10.0, description="Seconds between two checks; at most a week.")
    min_samples: Whole = Field(100, description="Answers of the challenger before a step passes.")
    auto_promote: Truth = Field(True, description="Promote without a human.")
    threshold: Whole = Field(1, description="Failed checks that end it.")
    deadline_s: Number = Field(
        bounds.DAY_S, description="An undecided step waits then; at most 366 days."
    )
    gate: Truth = Field(
        True, description="Ask the model's evaluation set first, if it has one; see `evaluation`."
    )
    alpha: Number = Field(0.05, description="Bound on a wrong decision over the whole rollout.")
    metrics: dict[str, MetricRequest] = Field(
        default_factory=dict, description="By name, what differs from the metric's defaults."
    )
    labels: LabelsRequest | None = Field(
        None, description="What is expected of feedback. With it, accuracy is required."
    )


class RolloutResponse(BaseModel):
    """A rollout."""

    id: str = Field(description="Its id.")
    model: str = Field(description="The model.")
    champion: int = Field(description="The version that had the traffic when it began.")
    challenger: int = Field(description="The version that it tries.")
    version: int = Field(description="The same as `challenger`.")
    strategy: str = Field(description="The strategy now.", examples=["canary"])
    stages: list[StageRequest] = Field(description="All strategies and their steps.")
    phase: str = Field(description="Progressing, Waiting, Promoting, Succeeded or Failed.")
    waits_for: str | None = Field(
        description="What a Waiting rollout waits for: evidence, analysis or approval. With the "
        "first two it goes on by itself."
    )
    paused: bool = Field(description="A human holds it.")
    weight: float = Field(description="Share of requests that the challenger answers, 0 to 100.")
    mirror_share: float = Field(description="Share of requests copied to it, 0 to 100.")
    stage: int = Field(description="Which strategy, from 0.")
    step: int = Field(description="Which step of it, from 0.")
    samples: int = Field(description="Requests of the challenger in the last check.")
    reason: str = Field(description="Why it is in its phase.")
    verdicts: list[VerdictResponse] = Field(description="The last twenty, with their numbers.")
    failed_checks: int = Field(description="Checks that failed so far.")
    due_at: datetime | None = Field(
        description="When the step is due to be decided at the rate seen, UTC; null if it is "
        "decided, or that cannot be told."
    )
    notice: str = Field(
        description="That it will not be decided before its deadline, and what would help."
    )
    warnings: list[str] = Field(
        description="What to know before it goes on, for example that nothing measures answers."
    )
    gate: ComparisonResponse | None = Field(
        description="What the evaluation set said of the two versions; null without one."
    )
    created_by: str = Field(description="Who began it.")
    created_at: datetime = Field(description="When, UTC.")
    step_started_at: datetime = Field(description="When the step began, UTC.")
    deadline_at: datetime = Field(description="When an undecided step waits, UTC.")
    finished_at: datetime | None = Field(description="When it ended, UTC.")
    revision: int = Field(description="Grows with every change.")


class RolloutDetailResponse(RolloutResponse):
    """A rollout and what was counted in its current step."""

    observations: dict[str, Any] = Field(description="Counts by version; pairs in shadow.")
    share: float | None = Field(
        description="The share of the step's requests that the challenger answered, 0 to 100."
    )
    shadow_dropped: int = Field(description="Copies that were not sent: too many were waiting.")


class SampleResponse(BaseModel):
    """A request that the two versions answered differently."""

    request_id: str = Field(description="The request.")
    at: datetime = Field(description="When, UTC.")
    image_digest: str = Field(description="Of the image's file.", examples=["sha256:9f86d081…"])
    image_kept: bool = Field(
        description="Whether the image itself was kept (`KEEP_DISAGREEING_IMAGES`)."
    )
    champion: dict[str, Any] = Field(description="Its category and largest scores.")
    challenger: dict[str, Any] = Field(description="Its category and largest scores.")


def plan_of(body: RolloutRequest) -> Plan:
    """
    Make a plan of what a caller sent.

    Raises:
        ValueError: It makes no sense (RolloutInvalid is one).
    """
    if body.stages is not None:
        stages = tuple(Stage.of(each.strategy, each.steps) for each in body.stages)
    else:
        names = [body.strategy] if isinstance(body.strategy, str) else body.strategy
        last = len(names) - 1
        stages = tuple(
            Stage.of(name, body.steps if place == last else None)
            for place, name in enumerate(names)
        )
    labels = body.labels
    return Plan(
        stages=stages,
        interval_s=body.interval_s,
        threshold=body.threshold,
        min_samples=body.min_samples,
        deadline_s=max(body.deadline_s, body.interval_s),
        auto_promote=body.auto_promote,
        metrics=_metrics(body.metrics),
        alpha=body.alpha,
        labels=None
        if labels is None
        else Labels(labels.delay_s, labels.fraction, LabelKind(labels.kind)),
    )


def _metrics(changes: Mapping[str, MetricRequest]) -> tuple[Metric, ...]:
    known = {metric.name.value: metric for metric in DEFAULT_METRICS}
    if unknown := set(changes) - set(known):
        raise RolloutInvalid(f"Unknown metric {min(unknown)}; there are {', '.join(known)}.")
    return tuple(
        _changed(metric, changes[name]) if name in changes else metric
        for name, metric in known.items()
    )


def _changed(metric: Metric, change: MetricRequest) -> Metric:
    given = change.model_dump(exclude_none=True)
    if "on_fail" in given:
        given["on_fail"] = OnFail(given["on_fail"])
    return replace(metric, **given)
