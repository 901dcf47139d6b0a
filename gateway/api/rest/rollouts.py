"""Rollouts: replace a champion on evidence."""

import io
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response
from PIL import Image

from gateway.api.callers import Actor
from gateway.api.rest import feedback
from gateway.api.rest.dependencies import ServicesOf
from gateway.api.rest.evidence_schemas import VerdictResponse
from gateway.api.rest.parameters import PathName, error_responses
from gateway.api.rest.rollout_answers import response_of, utc
from gateway.api.rest.rollout_schemas import (
    RolloutDetailResponse,
    RolloutRequest,
    RolloutResponse,
    SampleResponse,
    plan_of,
)
from gateway.inference.images.decoding import FORMATS
from gateway.rollouts.control.commands import plan_or_invalid

router = APIRouter(prefix="/api/v1", tags=["rollouts"])
# The routes of one rollout; they stand by themselves, and below the model that it is of.
one = APIRouter(prefix="/rollouts/{rollout}")


PathRollout = Annotated[str, Path(description="A rollout's id.", examples=["1f0c9a8b7e6d"])]
Limit = Annotated[int, Query(ge=1, le=10_000, description="At most so many, the newest.")]
Before = Annotated[
    str | None,
    Query(max_length=32, description="A rollout's id: only those that follow it in the list."),
]

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
    plan = plan_or_invalid(lambda: plan_of(body))
    row = await services.rollouts.create(name, body.version, plan, gated=body.gate, actor=actor)
    return response_of(row)


@router.get(
    "/models/{name}/rollouts", summary="A model's rollouts", responses=error_responses(404, 503)
)
async def list_rollouts_of_model(
    services: ServicesOf, name: PathName, limit: Limit = 100, before: Before = None
) -> list[RolloutResponse]:
    """Show the rollouts of a model, the newest first."""
    rows = await services.rollouts.history(name, limit=limit, before=before)
    return [response_of(row) for row in rows]


@router.get("/rollouts", summary="All rollouts", responses=error_responses(503))
async def list_rollouts(
    services: ServicesOf, limit: Limit = 100, before: Before = None
) -> list[RolloutResponse]:
    """Show the rollouts of all models, the newest first."""
    rows = await services.rollouts.history(limit=limit, before=before)
    return [response_of(row) for row in rows]


@one.get("", summary="A rollout", responses=error_responses(404, 503))
async def show_rollout(services: ServicesOf, rollout: PathRollout) -> RolloutDetailResponse:
    """Show a rollout with its verdicts and what was counted in its current step."""
    row = await services.rollouts.read(rollout)
    # Who hears that it has succeeded is answered by its version from now on.
    await services.registry.refresh()
    observed = await services.rollouts.observed(row)
    seen = observed.current
    asked = seen.champion_requests + seen.challenger_requests
    return RolloutDetailResponse(
        **vars(response_of(row)),
        observations=seen.to_json(),
        share=100 * seen.challenger_requests / asked if asked else None,
        shadow_dropped=observed.dropped,
    )


@one.post("/promote", summary="Promote", responses=_COMMAND_ERRORS)
async def promote_rollout(
    services: ServicesOf, actor: Actor, rollout: PathRollout
) -> RolloutResponse:
    """Promote the challenger now, whatever the evidence. Of two promotions one gets 409."""
    row = await services.rollouts.promote(rollout, actor=actor)
    return response_of(row)


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
    return response_of(row)


@one.post("/pause", summary="Pause", responses=_COMMAND_ERRORS)
async def pause_rollout(
    services: ServicesOf, actor: Actor, rollout: PathRollout
) -> RolloutResponse:
    """Hold the current step. It is still judged, and still rolled back if it fails."""
    row = await services.rollouts.pause(rollout, actor=actor)
    return response_of(row)


@one.post("/resume", summary="Resume", responses=_COMMAND_ERRORS)
async def resume_rollout(
    services: ServicesOf, actor: Actor, rollout: PathRollout
) -> RolloutResponse:
    """Go on after a pause or a wait."""
    row = await services.rollouts.resume(rollout, actor=actor)
    return response_of(row)


@one.post("/skip-step", summary="Skip the step", responses=_COMMAND_ERRORS)
async def skip_rollout_step(
    services: ServicesOf, actor: Actor, rollout: PathRollout
) -> RolloutResponse:
    """Go to the next step now, whatever the evidence. The last step is left by promoting."""
    row = await services.rollouts.skip_step(rollout, actor=actor)
    return response_of(row)


@one.get("/verdicts", summary="Its verdicts", responses=error_responses(404, 503))
async def show_verdicts(
    services: ServicesOf,
    rollout: PathRollout,
    limit: Limit = 100,
    before: Annotated[
        int | None, Query(ge=1, description="Only verdicts with a smaller `number`.")
    ] = None,
) -> list[VerdictResponse]:
    """
    Show the newest verdicts of a rollout with all numbers, the oldest of them first. Old ones are
    thinned out.
    """
    await services.rollouts.read(rollout)
    found = await services.rollouts.verdicts(rollout, limit=limit, before=before)
    return [VerdictResponse.model_validate(verdict) for verdict in found]


@one.get("/samples", summary="Samples of disagreement", responses=error_responses(404, 503))
async def show_samples(
    services: ServicesOf, rollout: PathRollout, limit: Limit = 100
) -> list[SampleResponse]:
    """Show requests that champion and challenger answered differently, the newest first."""
    return [
        SampleResponse(
            request_id=sample.request_id,
            at=utc(sample.at_s),
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
            "content": {
                "image/*": {"schema": {"type": "string", "format": "binary"}},
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
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


def _media_type(encoded: bytes) -> str:
    """Tell the media type of an image that was answered, so that it can be read."""
    with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
        return image.get_format_mimetype() or "application/octet-stream"


async def _of_model(services: ServicesOf, name: PathName, rollout: PathRollout) -> None:
    await services.rollouts.read(rollout, model=name)


router.include_router(one)
router.include_router(one, prefix="/models/{name}", dependencies=[Depends(_of_model)])
router.include_router(feedback.router)
