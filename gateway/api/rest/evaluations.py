"""Evaluation sets: labelled images that each version of a model is measured on."""

from datetime import UTC, datetime

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, ValidationError

from gateway.api.rest.dependencies import ServicesOf
from gateway.api.rest.evidence_schemas import ComparisonResponse, EvaluationDetails
from gateway.api.rest.parameters import PathName, PathVersion, error_responses, zip_body
from gateway.errors import VersionInvalid
from gateway.inference.pinned import read_version
from gateway.rollouts.statistics.evaluation import Evaluation, evaluate
from gateway.store.rollout_tables import EvaluationRow, EvaluationSetRow

router = APIRouter(prefix="/api/v1/models", tags=["evaluation"])


class EvaluationSetResponse(BaseModel):
    """A model's evaluation set."""

    model: str = Field(description="The model.")
    digest: str = Field(description="Of the zip.", examples=["sha256:9f86d081…"])
    images: int = Field(description="How many images it holds.")
    classes: int = Field(description="One more than the largest class in it.")
    created_at: datetime = Field(description="When it became the model's set, UTC.")


class EvaluationResponse(BaseModel):
    """What a version did on the set."""

    model: str = Field(description="The model.")
    version: int = Field(description="The version.")
    digest: str = Field(description="Of the set.")
    state: str = Field(description="done or failed.")
    error: str | None = Field(description="Why it could not be evaluated.")
    evaluation: EvaluationDetails | None = Field(
        description="Accuracy with its interval, recall by class, confusion matrix without its "
        "zeros (`[true class, answer, how often]`), calibration."
    )
    comparison: ComparisonResponse | None = Field(
        description="With the champion on the same images: McNemar's test, the difference with its "
        "interval, and whether a rollout may begin."
    )


@router.put(
    "/{name}/evaluation-set",
    summary="Give a model an evaluation set",
    responses=error_responses(404, 413, 422, 503, 507),
    openapi_extra=zip_body(required=True),
)
async def put_evaluation_set(
    services: ServicesOf, request: Request, name: PathName
) -> EvaluationSetResponse:
    """
    Send a zip of images with a `labels.csv` at its top, one line `file,category` for each image.
    Categories are classes of the model; what does not fit is refused with its line. All versions,
    and every later one, are evaluated on it in the background.
    """
    return _set(await services.rollouts.evaluations.put_set(name, await request.body()))


@router.get(
    "/{name}/evaluation-set", summary="A model's evaluation set", responses=error_responses(404)
)
async def show_evaluation_set(services: ServicesOf, name: PathName) -> EvaluationSetResponse:
    """Show which set a model's versions are measured on."""
    return _set(await services.rollouts.evaluations.set_of(name))


@router.get(
    "/{name}/versions/{version}/evaluation",
    summary="A version's evaluation",
    responses=error_responses(404, 422, 503),
)
async def show_evaluation(
    services: ServicesOf,
    name: PathName,
    version: PathVersion,
) -> EvaluationResponse:
    """Show what a version did on the model's set, alone and beside the champion."""
    number = read_version(version)
    if number is None:
        raise VersionInvalid("A version is a positive number, for example 2.")
    row, comparison = await services.rollouts.evaluations.result(name, number)
    return EvaluationResponse(
        model=row.model,
        version=row.version,
        digest=row.digest,
        state=row.state,
        error=row.error,
        evaluation=_details(row),
        comparison=None if comparison is None else ComparisonResponse.model_validate(comparison),
    )


def _details(row: EvaluationRow) -> EvaluationDetails | None:
    """Show what is stored; of a document that another release wrote, what its answers say."""
    if row.evaluation is None:
        return None
    try:
        found = Evaluation.from_json(row.evaluation)
    except ValidationError:
        if row.labels is None or row.answers is None:
            return None
        found = evaluate(row.labels, row.answers)
    return EvaluationDetails.model_validate(found)


def _set(row: EvaluationSetRow) -> EvaluationSetResponse:
    return EvaluationSetResponse(
        model=row.model,
        digest=row.digest,
        images=row.images,
        classes=row.classes,
        created_at=datetime.fromtimestamp(row.created_at_s, UTC),
    )
