"""Rollouts: replace a champion on evidence. And feedback, which is some of the evidence."""

import io
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Response
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from gateway.api.callers import Actor, CallerOf
from gateway.api.rest.dependencies import ServicesOf
from gateway.api.rest.parameters import PathName, error_responses
from gateway.errors import FeedbackInvalid, RolloutInvalid
from gateway.inference.images.decoding import FORMATS
from gateway.rollouts.control.commands import plan_or_invalid
from gateway.rollouts.state.plan import Plan, Stage
from gateway.rollouts.state.rollout import Rollout
from gateway.rollouts.statistics.metrics import DEFAULT_METRICS, Metric
from gateway.store.rollout_tables import RolloutRow

router = APIRouter(prefix="/api/v1", tags=["rollouts"])
# The routes of one rollout; they stand by themselves, and below the model that it is of.
one = APIRouter(prefix="/rollouts/{rollout}")


PathRollout = Annotated[str, Path(description="A rollout's id.", examples=["1f0c9a8b7e6d"])]
Limit = Annotated[int, Query(ge=1, le=10_000, description="At most so many, the newest.")]
StrategyName = Literal["shadow", "canary", "ab"]


class StageRequest(BaseModel):
    """One strategy and its steps."""

    strategy: StrategyName = Field(description="How the challenger meets traffic.")
    steps: list[float] | None = Field(
        None, description="Weights, or for shadow shares that are mirrored, 0 to 100."
    )


class MetricRequest(BaseModel):
    """What differs from a metric's defaults."""

    tolerated: float | None = Field(None, description="The difference up to which it passes.")
    min_samples: int | None = Field(None, ge=1, description="Not judged before so many.")
    required: bool | None = Field(None, description="A step does not pass without it.")
    percentile: float | None = Field(None, description="Of the latency.")


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

    version: int = Field(ge=1, description="The challenger.")
    strategy: StrategyName | list[StrategyName] = Field(
        "canary", description="One strategy, or several, one after the other."
    )
    steps: list[float] | None = Field(
        None, description="Steps of the (last) strategy; default: shadow 100, canary 1, 5, 25, 50."
    )
    stages: list[StageRequest] | None = Field(
        None, description="Instead of `strategy` and `steps`: each strategy with its own steps."
    )
    interval_s: float = Field(10.0, description="Seconds between two checks.")
    min_samples: int = Field(100, description="Answers of the challenger before a step passes.")
    auto_promote: bool = Field(True, description="Promote without a human.")
    threshold: int = Field(1, description="Failed checks that end it.")
    deadline_s: float = Field(86_400.0, description="An undecided step waits for a human then.")
    gate: bool = Field(
        True, description="Ask the model's evaluation set first, if it has one; see `evaluation`."
    )
    alpha: float = Field(0.05, description="Bound on a wrong decision over the whole rollout.")
    metrics: dict[str, MetricRequest] = Field(
        default_factory=dict, description="By name, what differs from the metric's defaults."
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
    paused: bool = Field(description="A human holds it.")
    weight: float = Field(description="Share of callers that the challenger answers, 0 to 100.")
    mirror_share: float = Field(description="Share of requests copied to it, 0 to 100.")
    stage: int = Field(description="Which strategy, from 0.")
    step: int = Field(description="Which step of it, from 0.")
    samples: int = Field(description="Requests of the challenger in the last check.")
    reason: str = Field(description="Why it is in its phase.")
    verdicts: list[dict[str, Any]] = Field(description="The last twenty, with their numbers.")
    failed_checks: int = Field(description="Checks that failed so far.")
    warnings: list[str] = Field(
        description="What to know before it goes on, for example that nothing measures answers."
    )
    gate: dict[str, Any] | None = Field(
        description="What the evaluation set said of the two versions; null without one."
    )
    created_by: str = Field(description="Who began it.")
    created_at: datetime = Field(description="When, UTC.")
    step_started_at: datetime = Field(description="When the step began, UTC.")
    deadline_at: datetime = Field(description="When an undecided step waits for a human, UTC.")
    finished_at: datetime | None = Field(description="When it ended, UTC.")
    revision: int = Field(description="Grows with every change.")


class RolloutDetailResponse(RolloutResponse):
    """A rollout and what was counted in its current step."""

    observations: dict[str, Any] = Field(description="Counts by version; pairs in shadow.")
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


class FeedbackRequest(BaseModel):
    """The true class of an answered request."""

    request_id: str = Field(
        max_length=128, description="Its `X-Request-ID`.", examples=["0f3a…"], min_length=1
    )
    category: str = Field(description="The true class, as `run` writes it.", examples=["07"])


class FeedbackResponse(BaseModel):
    """What the feedback was about."""

    model: str = Field(description="The model that answered.")
    version: int = Field(description="The version that answered.")
    correct: bool = Field(description="Whether the answer was right.")
    counted: bool = Field(description="False if there was feedback on this request before.")


class AccuracyResponse(BaseModel):
    """Feedback on one version."""

    version: int = Field(description="The version.")
    labelled: int = Field(description="Answers whose true class is known.")
    wrong: int = Field(description="Those that were wrong.")
    accuracy: float = Field(description="The share that was right.")


_COMMAND_ERRORS = error_responses(404, 409, 502, 503, 504)


@router.post(
    "/models/{name}/rollouts",
    summary="Begin a rollout",
    responses=error_responses(404, 409, 422, 502, 503, 504),
)
async def create_rollout(
    services: ServicesOf, actor: Actor, name: PathName, body: RolloutRequest
) -> RolloutResponse:
    """Load a version and begin to try it. It gets traffic only once it is loaded everywhere."""
    plan = plan_or_invalid(lambda: _plan(body))
    row = await services.rollouts.create(name, body.version, plan, gated=body.gate, actor=actor)
    return RolloutResponse(**_rollout(row))


@router.get(
    "/models/{name}/rollouts", summary="A model's rollouts", responses=error_responses(404, 503)
)
async def list_rollouts_of_model(
    services: ServicesOf, name: PathName, limit: Limit = 100
) -> list[RolloutResponse]:
    """Show the rollouts of a model, the newest first."""
    rows = await services.rollouts.history(name, limit=limit)
    return [RolloutResponse(**_rollout(row)) for row in rows]


@router.get("/rollouts", summary="All rollouts", responses=error_responses(503))
async def list_rollouts(services: ServicesOf, limit: Limit = 100) -> list[RolloutResponse]:
    """Show the rollouts of all models, the newest first."""
    rows = await services.rollouts.history(limit=limit)
    return [RolloutResponse(**_rollout(row)) for row in rows]


@one.get("", summary="A rollout", responses=error_responses(404, 503))
async def show_rollout(services: ServicesOf, rollout: PathRollout) -> RolloutDetailResponse:
    """Show a rollout with its verdicts and what was counted in its current step."""
    row = await services.rollouts.read(rollout)
    # Who hears that it has succeeded is answered by its version from now on.
    await services.registry.refresh()
    observed, dropped = await services.rollouts.observed(row)
    return RolloutDetailResponse(**_rollout(row), observations=observed, shadow_dropped=dropped)


@one.post("/promote", summary="Promote", responses=_COMMAND_ERRORS)
async def promote_rollout(
    services: ServicesOf, actor: Actor, rollout: PathRollout
) -> RolloutResponse:
    """Promote the challenger now, whatever the evidence. Of two promotions one gets 409."""
    row = await services.rollouts.promote(rollout, actor=actor)
    return RolloutResponse(**_rollout(row))


@one.post("/rollback", summary="Roll back", responses=_COMMAND_ERRORS)
async def roll_back_rollout(
    services: ServicesOf,
    actor: Actor,
    rollout: PathRollout,
    reason: Annotated[
        str, Query(max_length=500, description="Why, for the history.")
    ] = "Rolled back by a human.",
) -> RolloutResponse:
    """Give all traffic to the champion, at once."""
    row = await services.rollouts.roll_back(rollout, reason=reason, actor=actor)
    return RolloutResponse(**_rollout(row))


@one.post("/pause", summary="Pause", responses=_COMMAND_ERRORS)
async def pause_rollout(
    services: ServicesOf, actor: Actor, rollout: PathRollout
) -> RolloutResponse:
    """Hold the current step. It is still judged, and still rolled back if it fails."""
    row = await services.rollouts.pause(rollout, actor=actor)
    return RolloutResponse(**_rollout(row))


@one.post("/resume", summary="Resume", responses=_COMMAND_ERRORS)
async def resume_rollout(
    services: ServicesOf, actor: Actor, rollout: PathRollout
) -> RolloutResponse:
    """Go on after a pause or a wait."""
    row = await services.rollouts.resume(rollout, actor=actor)
    return RolloutResponse(**_rollout(row))


@one.get("/verdicts", summary="Its verdicts", responses=error_responses(404, 503))
async def show_verdicts(
    services: ServicesOf, rollout: PathRollout, limit: Limit = 100
) -> list[dict[str, Any]]:
    """Show the newest verdicts of a rollout with all numbers, the oldest of them first."""
    await services.rollouts.read(rollout)
    return await services.rollouts.verdicts(rollout, limit=limit)


@one.get("/samples", summary="Samples of disagreement", responses=error_responses(404, 503))
async def show_samples(
    services: ServicesOf, rollout: PathRollout, limit: Limit = 100
) -> list[SampleResponse]:
    """Show requests that champion and challenger answered differently, the newest first."""
    return [
        SampleResponse(
            request_id=sample.request_id,
            at=_utc(sample.at_s),
            image_digest=sample.image_digest,
            image_kept=sample.image_kept,
            champion=dict(sample.champion),
            challenger=dict(sample.challenger),
        )
        for sample in await services.rollouts.samples(rollout, limit=limit)
    ]


@one.get(
    "/samples/{digest}/image",
    summary="The image of a sample",
    response_class=Response,
    responses={
        200: {
            "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
            "description": "The file, as it was sent.",
        },
        **error_responses(404, 503),
    },
)
async def show_sample_image(
    services: ServicesOf,
    rollout: PathRollout,
    digest: Annotated[
        str, Path(description="A sample's `image_digest`.", examples=["sha256:9f86d081…"])
    ],
) -> Response:
    """Give back the image of a sample; 404 if `KEEP_DISAGREEING_IMAGES` was off when it came."""
    image = await services.rollouts.sample_image(rollout, digest)
    return Response(
        image, media_type=_media_type(image), headers={"X-Content-Type-Options": "nosniff"}
    )


@router.post("/feedback", summary="Give feedback", responses=error_responses(404, 422, 503))
async def give_feedback(
    services: ServicesOf, caller: CallerOf, body: FeedbackRequest
) -> FeedbackResponse:
    """Tell the true class of an answered request: for live accuracy, and for rollouts."""
    if not re.fullmatch(r"[0-9]{1,9}", body.category):
        raise FeedbackInvalid('A category is a number as `run` writes it, for example "07".')
    judged = await services.rollouts.judge(body.request_id, int(body.category), sees=caller.sees)
    return FeedbackResponse(
        model=judged.model, version=judged.version, correct=judged.right, counted=judged.counted
    )


@router.get("/models/{name}/accuracy", summary="Live accuracy", responses=error_responses(404, 503))
async def show_accuracy(services: ServicesOf, name: PathName) -> list[AccuracyResponse]:
    """Show what feedback says of each version."""
    return [
        AccuracyResponse(
            version=row.version,
            labelled=row.labelled,
            wrong=row.wrong,
            accuracy=1 - row.wrong / row.labelled,
        )
        for row in await services.rollouts.accuracy(name)
    ]


def _plan(body: RolloutRequest) -> Plan:
    if body.stages is not None:
        stages = tuple(Stage.of(each.strategy, each.steps) for each in body.stages)
    else:
        names = [body.strategy] if isinstance(body.strategy, str) else body.strategy
        last = len(names) - 1
        stages = tuple(
            Stage.of(name, body.steps if place == last else None)
            for place, name in enumerate(names)
        )
    return Plan(
        stages=stages,
        interval_s=body.interval_s,
        threshold=body.threshold,
        min_samples=body.min_samples,
        deadline_s=max(body.deadline_s, body.interval_s),
        auto_promote=body.auto_promote,
        metrics=_metrics(body.metrics),
        alpha=body.alpha,
    )


def _metrics(changes: Mapping[str, MetricRequest]) -> tuple[Metric, ...]:
    known = {metric.name.value: metric for metric in DEFAULT_METRICS}
    if unknown := set(changes) - set(known):
        raise RolloutInvalid(f"Unknown metric {min(unknown)}; there are {', '.join(known)}.")
    return tuple(
        replace(metric, **changes[name].model_dump(exclude_none=True))
        if name in changes
        else metric
        for name, metric in known.items()
    )


def _rollout(row: RolloutRow) -> dict[str, Any]:
    rollout = Rollout.from_json(row.state)
    verdicts = row.state["verdicts"]
    return {
        "id": rollout.id,
        "model": rollout.model,
        "champion": rollout.champion,
        "challenger": rollout.challenger,
        "version": rollout.challenger,
        "strategy": rollout.current_stage.strategy,
        "stages": [
            StageRequest(strategy=stage.strategy.value, steps=list(stage.steps))
            for stage in rollout.plan.stages
        ],
        "phase": rollout.phase,
        "paused": rollout.paused,
        "weight": rollout.weight,
        "mirror_share": rollout.mirror_share,
        "stage": rollout.stage,
        "step": rollout.step,
        "samples": verdicts[-1]["samples"] if verdicts else 0,
        "reason": rollout.reason,
        "verdicts": verdicts,
        "failed_checks": rollout.failed_checks,
        "warnings": list(rollout.warnings),
        "gate": row.gate,
        "created_by": row.created_by,
        "created_at": _utc(rollout.created_at_s),
        "step_started_at": _utc(rollout.step_started_at_s),
        "deadline_at": _utc(rollout.deadline_at_s),
        "finished_at": None if rollout.finished_at_s is None else _utc(rollout.finished_at_s),
        "revision": rollout.revision,
    }


def _media_type(encoded: bytes) -> str:
    """Tell the media type of an image that was answered, so that it can be read."""
    with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
        return image.get_format_mimetype() or "application/octet-stream"


def _utc(at_s: float) -> datetime:
    return datetime.fromtimestamp(at_s, UTC)


async def _of_model(services: ServicesOf, name: PathName, rollout: PathRollout) -> None:
    await services.rollouts.read(rollout, model=name)


router.include_router(one)
router.include_router(one, prefix="/models/{name}", dependencies=[Depends(_of_model)])
