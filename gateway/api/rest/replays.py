"""Replays: recorded requests, asked of a version that no caller has met."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.api.callers import Actor
from gateway.api.rest.dependencies import ServicesOf
from gateway.api.rest.evidence_schemas import VerdictResponse
from gateway.api.rest.json_types import Number, Whole
from gateway.api.rest.parameters import PathName, error_responses
from gateway.api.rest.rollout_answers import utc
from gateway.api.rest.rollout_schemas import MetricRequest, RolloutRequest, plan_of
from gateway.rollouts.control.commands import plan_or_invalid
from gateway.rollouts.statistics.verdict import Verdict
from gateway.store.rollout_tables import ReplayRow

router = APIRouter(prefix="/api/v1/models/{name}", tags=["replays"])


class ReplayRequest(BaseModel):
    """Which version is asked, and how it is judged."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"version": 3, "images": 5000}]}
    )

    version: Whole = Field(ge=1, description="The candidate; any version but the champion.")
    images: Whole | None = Field(
        None, ge=1, description="So many recorded requests, the newest. Default: all."
    )
    min_samples: Whole = Field(100, description="Fewer requests decide nothing.")
    alpha: Number = Field(0.05, description="Bound on a wrong verdict.")
    metrics: dict[str, MetricRequest] = Field(
        default_factory=dict, description="By name, what differs from the metric's defaults."
    )


class ReplayResponse(BaseModel):
    """A replay."""

    id: str = Field(description="Its id.", examples=["1f0c9a8b7e6d"])
    model: str = Field(description="The model.")
    champion: int = Field(description="The version that it is compared with.")
    version: int = Field(description="The candidate.")
    state: str = Field(description="running, done or failed.")
    images: int = Field(description="Recorded requests that it goes through.")
    asked: int = Field(description="Those that both versions were asked so far.")
    skipped: int = Field(
        description="Those that could not be read: deleted since, damaged, or of another key."
    )
    labelled: int = Field(description="Those asked whose true class feedback has told.")
    error: str | None = Field(description="Why it failed.")
    verdict: VerdictResponse | None = Field(
        description="What the analysis of a shadow says of it; null until it is done."
    )
    created_by: str = Field(description="Who began it.")
    created_at: datetime = Field(description="When, UTC.")
    finished_at: datetime | None = Field(description="When it ended, UTC.")


class RecordedResponse(BaseModel):
    """What is recorded of a model."""

    model: str = Field(description="The model.")
    images: int = Field(description="Recorded requests.")
    labelled: int = Field(description="Those whose true class feedback has told.")
    size_bytes: int = Field(description="Disk that they take.")
    oldest_at: datetime | None = Field(description="When the oldest was answered, UTC.")
    newest_at: datetime | None = Field(description="When the newest was answered, UTC.")
    encrypted: bool = Field(description="Whether what is recorded from now on is encrypted.")


@router.post(
    "/replays", summary="Begin a replay", responses=error_responses(404, 409, 422, 429, 503)
)
async def begin_replay(
    services: ServicesOf, actor: Actor, name: PathName, body: ReplayRequest
) -> ReplayResponse:
    """Ask a version, and the champion, what was recorded. It runs in the background."""
    plan = plan_or_invalid(
        lambda: plan_of(
            RolloutRequest(
                version=body.version,
                strategy="shadow",
                min_samples=body.min_samples,
                alpha=body.alpha,
                metrics=body.metrics,
            )
        )
    )
    replays = services.rollouts.replays
    row = await replays.begin(name, body.version, plan, most=body.images, actor=actor)
    return _response_of(row)


@router.get("/replays", summary="A model's replays", responses=error_responses(404, 503))
async def list_replays(
    services: ServicesOf,
    name: PathName,
    limit: Annotated[int, Query(ge=1, le=100, description="At most so many.")] = 20,
) -> list[ReplayResponse]:
    """Show the replays of a model, the newest first; the newest 100 are kept."""
    rows = await services.rollouts.replays.history(name, limit=limit)
    return [_response_of(row) for row in rows]


@router.get("/replays/{replay}", summary="A replay", responses=error_responses(404, 503))
async def show_replay(
    services: ServicesOf,
    name: PathName,
    replay: Annotated[str, Path(description="A replay's id.", examples=["1f0c9a8b7e6d"])],
) -> ReplayResponse:
    """Show how far a replay is, and its verdict."""
    return _response_of(await services.rollouts.replays.read(name, replay))


@router.get("/recordings", summary="What is recorded", responses=error_responses(404, 503))
async def show_recordings(services: ServicesOf, name: PathName) -> RecordedResponse:
    """Show how much this gateway has recorded of a model (`RECORD_SHARE`)."""
    found = await services.rollouts.replays.recorded(name)
    return RecordedResponse(
        model=name,
        images=found.images,
        labelled=found.labelled,
        size_bytes=found.size_bytes,
        oldest_at=None if found.oldest_s is None else utc(found.oldest_s),
        newest_at=None if found.newest_s is None else utc(found.newest_s),
        encrypted=services.rollouts.replays.sealed,
    )


@router.delete("/recordings", summary="Delete recordings", responses=error_responses(404, 503))
async def delete_recordings(services: ServicesOf, name: PathName) -> RecordedResponse:
    """Delete everything that this gateway has recorded of a model."""
    await services.rollouts.replays.forget(name)
    return await show_recordings(services, name)


def _response_of(row: ReplayRow) -> ReplayResponse:
    return ReplayResponse(
        id=row.id,
        model=row.model,
        champion=row.champion,
        version=row.candidate,
        state=row.state,
        images=row.images,
        asked=row.asked,
        skipped=row.skipped,
        labelled=row.labelled,
        error=row.error,
        verdict=_verdict_of(row),
        created_by=row.created_by,
        created_at=utc(row.created_at_s),
        finished_at=None if row.finished_at_s is None else utc(row.finished_at_s),
    )


def _verdict_of(row: ReplayRow) -> VerdictResponse | None:
    """Show the verdict; nothing of one that another release wrote in another way."""
    if row.verdict is None:
        return None
    try:
        return VerdictResponse.model_validate(Verdict.from_json(row.verdict))
    except ValidationError:
        return None
