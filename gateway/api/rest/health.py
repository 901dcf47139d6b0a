"""
Health, as Kubernetes asks for it. Alive: the event loop answers, whatever Triton and the database
do. Ready: a request would be answered. Started: what should be loaded at start is loaded.
"""

from fastapi import APIRouter, Response

from gateway.api.rest.dependencies import ServicesOf
from gateway.api.rest.schemas import CheckResponse, HealthResponse
from gateway.services import Check

router = APIRouter(tags=["health"])


@router.get("/livez", summary="Is the process alive?")
async def livez() -> HealthResponse:
    """Answer as long as the process can."""
    return HealthResponse(ok=True)


@router.get(
    "/readyz", summary="Would a request be answered?", responses={503: {"model": HealthResponse}}
)
async def readyz(services: ServicesOf, response: Response) -> HealthResponse:
    """Check the replicas, the database, and that the server is not stopping."""
    return _answer(response, await services.ready())


@router.get("/startupz", summary="Has it started?", responses={503: {"model": HealthResponse}})
async def startupz(services: ServicesOf, response: Response) -> HealthResponse:
    """Check that what should be loaded at start has been loaded, or has been given up."""
    return _answer(response, services.started())


def _answer(response: Response, checks: dict[str, Check]) -> HealthResponse:
    ok = all(check.ok for check in checks.values())
    if not ok:
        response.status_code = 503
    return HealthResponse(
        ok=ok,
        checks={
            name: CheckResponse(ok=check.ok, detail=check.detail) for name, check in checks.items()
        },
    )
