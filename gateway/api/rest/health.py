"""
Health, as Kubernetes asks for it. Alive: the event loop answers, whatever Triton and the database
do. Ready: a request would be answered. Started: what should be loaded at start is loaded. And of
one model: a run would be answered now.
"""

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from gateway.api.rest.dependencies import ServicesOf
from gateway.api.rest.parameters import Alias, PathName, Version, error_responses
from gateway.api.rest.schemas import CheckResponse, HealthResponse
from gateway.health import Check
from gateway.inference.pinned import read_version

router = APIRouter(tags=["health"])


@router.get("/livez", summary="Is the process alive?")
async def livez() -> HealthResponse:
    """Answer as long as the process can."""
    return HealthResponse(ok=True)


@router.get(
    "/readyz", summary="Would a request be answered?", responses={503: {"model": HealthResponse}}
)
async def readyz(services: ServicesOf, response: Response) -> HealthResponse:
    """
    Check that the server is not stopping, that a replica can be reached, and that what should be
    loaded was tried once. What is away but holds up no run, such as the database, is named under
    `degraded`.
    """
    return _answer(response, await services.health.ready())


@router.get("/startupz", summary="Has it started?", responses={503: {"model": HealthResponse}})
async def startupz(services: ServicesOf, response: Response) -> HealthResponse:
    """Check that what should be loaded at start has been loaded, or has been given up."""
    return _answer(response, services.health.started())


class ModelReadyResponse(BaseModel):
    """A version that would answer now."""

    name: str = Field(description="The model's name.", examples=["flowers"])
    version: int = Field(description="The version that would answer.", examples=[1])
    ready: bool = Field(description="Always true: what is not ready is an error.")


@router.get(
    "/api/v1/models/{name}/ready",
    summary="Would a run of this model be answered?",
    responses=error_responses(404, 409, 422, 503),
)
async def model_ready(
    services: ServicesOf,
    name: PathName,
    version: Version = None,
    alias: Alias = None,
) -> ModelReadyResponse:
    """Answer 200 if a run would be answered now; else the error that it would be answered with."""
    chosen = services.tensors.choose(name, version=read_version(version), alias=alias)
    return ModelReadyResponse(name=name, version=chosen.version, ready=True)


def _answer(response: Response, checks: dict[str, Check]) -> HealthResponse:
    ok = all(check.ok for check in checks.values())
    if not ok:
        response.status_code = 503
    return HealthResponse(
        ok=ok,
        degraded=[name for name, check in checks.items() if check.degraded],
        checks={
            name: CheckResponse(ok=check.ok, detail=check.detail) for name, check in checks.items()
        },
    )
