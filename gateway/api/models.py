"""
The four calls of the original contract: list, load, run, unload.

Transport only. What the calls do stands in `registry/lifecycle.py` and `inference/run.py`.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from gateway.api.dependencies import RequestId, ServicesOf
from gateway.api.schemas import ErrorResponse, RunRequest, RunResponse
from gateway.errors import VersionInvalid
from gateway.inference.run import Stages

router = APIRouter(prefix="/api/v1", tags=["models"])

_CALLER = "api"
_LARGEST_VERSION = 2**63 - 1

Name = Annotated[str, Query(description="Name of a model.", examples=["digits"])]
PathName = Annotated[str, Path(description="Name of a model.", examples=["digits"])]
Version = Annotated[
    str | None,
    Query(description="A version of the model, 1 or more. Default: the champion.", examples=["2"]),
]
Alias = Annotated[str | None, Query(description="An alias of the model.", examples=["challenger"])]


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    texts = {
        404: "No such model or version.",
        409: "Not loaded, or otherwise against the state of the server.",
        413: "The body or the image is too large.",
        422: "The request is at fault.",
        429: "Overloaded; retry after `Retry-After` seconds.",
        502: "Triton or the model failed.",
        503: "Not available right now; retry after `Retry-After` seconds.",
        504: "No answer within the deadline.",
    }
    return {status: {"model": ErrorResponse, "description": texts[status]} for status in statuses}


def _version(text: str | None) -> int | None:
    """
    Read a version as Triton writes one: a positive number with no leading zero.

    Raises:
        VersionInvalid: It is something else, or more than 63 bits.
    """
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal()) or text.startswith("0") or len(text) > 19:
        raise VersionInvalid("A version is a positive number, for example 2.")
    if (number := int(text)) > _LARGEST_VERSION:
        raise VersionInvalid("A version is a positive number of at most 63 bits.")
    return number


@router.get("/list", summary="List the models")
async def list_models(services: ServicesOf) -> list[str]:
    """Name every registered model, loaded or not."""
    return services.registry.catalog.names()


@router.post("/load", summary="Load a model", responses=_errors(404, 409, 422, 502, 503, 504))
async def load_model(services: ServicesOf, name: Name, version: Version = None) -> int:
    """Load a model on every replica and wait until it is ready. Already loaded is fine too."""
    number = _version(version)
    if services.models_folder is not None and name not in services.registry.catalog.models:
        # The file may have been put there a moment ago.
        await services.models_folder.sync()
    await services.lifecycle.load(name, number, actor=_CALLER)
    return 200


@router.post("/unload", summary="Unload a model", responses=_errors(404, 409, 422, 503, 504))
async def unload_model(services: ServicesOf, name: Name, version: Version = None) -> int:
    """Unload a model from every replica. Requests that are under way finish."""
    await services.lifecycle.unload(name, _version(version), actor=_CALLER)
    return 200


@router.post(
    "/run/{name}",
    summary="Classify an image",
    responses=_errors(404, 409, 413, 422, 429, 502, 503, 504),
)
async def run_model(
    services: ServicesOf,
    request_id: RequestId,
    response: Response,
    name: PathName,
    body: RunRequest,
    version: Version = None,
    alias: Alias = None,
) -> RunResponse:
    """Classify an image by a model's champion, or by the version or alias that is asked for."""
    answer = await services.runner.run(
        name, body.image, version=_version(version), alias=alias, request_id=request_id
    )
    response.headers["X-Model-Version"] = str(answer.version)
    response.headers["Server-Timing"] = _server_timing(answer.stages)
    return RunResponse(category=answer.category)


def _server_timing(stages: Stages) -> str:
    durations_s = (
        ("decode", stages.decode_s),
        ("queue", stages.queue_s),
        ("infer", stages.infer_s),
    )
    return ", ".join(f"{name};dur={seconds * 1000:.2f}" for name, seconds in durations_s)
