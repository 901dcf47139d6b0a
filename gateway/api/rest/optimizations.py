"""Optimization: a faster challenger, made of a version and proved on images."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from gateway.api.callers import Actor
from gateway.api.rest.dependencies import ServicesOf
from gateway.api.rest.parameters import PathName, Version, error_responses, zip_body
from gateway.inference.pinned import read_version
from gateway.optimize.decision import LEAST_SPEEDUP
from gateway.optimize.optimizer import (
    CALIBRATION_IMAGES,
    LEAST_AGREEMENT,
    OptimizationWanted,
    Optimized,
)

router = APIRouter(prefix="/api/v1/models/{name}", tags=["optimization"])


class CandidateResponse(BaseModel):
    """A model, measured on this machine."""

    name: str = Field(
        description="How it was made; `as it is`: the version itself.", examples=["u8s8"]
    )
    agreement: float = Field(description="Share of the images with the version's own answer, 0-1.")
    accuracy: float | None = Field(
        description="Share of the images answered right, 0-1; null without labels."
    )
    latency_ms: float = Field(description="Median of one image on one thread.")
    speedup: float = Field(description="The version's latency divided by this one's.")
    size_bytes: int = Field(description="Of the file.")


class OptimizeResponse(BaseModel):
    """What was found, and the challenger that was registered."""

    model: str = Field(description="The model.")
    made_of: int = Field(description="The version that candidates were made of.")
    version: int | None = Field(
        description="The challenger; null: nothing is worth it, or `dry_run`."
    )
    reason: str = Field(description="Why, in a sentence.")
    itself: CandidateResponse = Field(description="The version that candidates were made of.")
    candidates: list[CandidateResponse] = Field(description="What was tried.")
    chosen: int | None = Field(description="Which of them is worth it, an index.")
    vnni: bool = Field(description="Whether this processor has instructions for 8-bit products.")
    calibrated_on: int = Field(description="Images that calibrated; none of them judged.")
    judged_on: int = Field(description="Images that judged.")


@router.post(
    "/optimize",
    summary="Make a faster challenger",
    responses=error_responses(404, 409, 413, 422, 429, 503, 507),
    openapi_extra=zip_body(required=False),
)
async def optimize_model(
    services: ServicesOf,
    actor: Actor,
    request: Request,
    name: PathName,
    version: Version = None,
    images: Annotated[
        int, Query(ge=1, le=5000, description="So many images calibrate, a quarter at most.")
    ] = CALIBRATION_IMAGES,
    least_agreement: Annotated[
        float, Query(ge=0, le=1, description="Share of the images that must be answered alike.")
    ] = LEAST_AGREEMENT,
    least_speedup: Annotated[
        float, Query(ge=0, le=100, description="How many times as fast it must be.")
    ] = LEAST_SPEEDUP,
    dry_run: Annotated[bool, Query(description="Measure, and register nothing.")] = False,
) -> OptimizeResponse:
    """
    Compute a version in eight bits, measure that on this machine, and register it as the next
    version if it is worth it. A rollout then judges it like any other.

    Images come from the model's evaluation set, or from the body: a zip of images, with a
    `labels.csv` or without. The answer comes when it is done, which takes minutes.
    """
    wanted = OptimizationWanted(
        read_version(version), images, least_agreement, least_speedup, dry_run
    )
    given = await request.body() or None
    return _answer(await services.optimizer.optimize(name, wanted, given, actor=actor))


def _answer(found: Optimized) -> OptimizeResponse:
    return OptimizeResponse(
        model=found.made_of.model,
        made_of=found.made_of.version,
        version=None if found.registered is None else found.registered.version,
        reason=found.reason,
        itself=CandidateResponse(**asdict(found.itself)),
        candidates=[CandidateResponse(**asdict(row)) for row in found.rows],
        chosen=found.chosen,
        vnni=found.vnni,
        calibrated_on=found.calibrated_on,
        judged_on=found.judged_on,
    )
