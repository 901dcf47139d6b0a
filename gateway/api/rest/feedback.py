"""Feedback: the true classes of answered requests, and the accuracy that follows from them."""

import re

from fastapi import APIRouter
from pydantic import BaseModel, Field

from gateway.api.callers import CallerOf
from gateway.api.rest.dependencies import ServicesOf
from gateway.api.rest.parameters import PathName, error_responses

router = APIRouter()


class FeedbackRequest(BaseModel):
    """The true class of an answered request."""

    request_id: str = Field(
        max_length=128, description="Its `X-Request-ID`.", examples=["0f3a…"], min_length=1
    )
    category: str = Field(
        description="The true class, as `run` writes it, or its label.",
        examples=["07"],
        max_length=1_000,
    )


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


@router.post("/feedback", summary="Give feedback", responses=error_responses(404, 422, 503))
async def give_feedback(
    services: ServicesOf, caller: CallerOf, body: FeedbackRequest
) -> FeedbackResponse:
    """Tell the true class of an answered request: for live accuracy, and for rollouts."""
    number = re.fullmatch(r"[0-9]{1,9}", body.category)
    category = int(body.category) if number else body.category
    judged = await services.rollouts.judge(body.request_id, category, sees=caller.sees)
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
