"""What the routes ask for: the services that live as long as the app."""

from typing import Annotated

from fastapi import Depends, Header, Request

from gateway.api.request_context import request_id_of
from gateway.services import Services
from gateway.telemetry.observation import Observation, observation_of


def services_in(request: Request) -> Services:
    """Return the app's services; they are open whenever a request arrives."""
    services: Services = request.app.state.services
    return services


def rollout_key(request: Request) -> str | None:
    """Name the caller: by the header, else by its API key; else each request is on its own."""
    headers = request.headers
    return headers.get("x-rollout-key") or headers.get("authorization") or headers.get("x-api-key")


# Coroutines, though they wait for nothing: the framework calls a plain function in a thread.
async def services_of(request: Request) -> Services:
    """Return the app's services."""
    return services_in(request)


async def _request_id(request: Request) -> str:
    return request_id_of(request.scope)


async def _seen(request: Request) -> Observation:
    return observation_of(request.scope)


async def _rollout_key(
    request: Request,
    x_rollout_key: Annotated[  # noqa: ARG001 - declared for the interface's description
        str | None,
        Header(description="Who calls: during a canary the same key stays with one version."),
    ] = None,
) -> str | None:
    return rollout_key(request)


ServicesOf = Annotated[Services, Depends(services_of)]
RequestId = Annotated[str, Depends(_request_id)]
Seen = Annotated[Observation, Depends(_seen)]
RolloutKey = Annotated[str | None, Depends(_rollout_key)]
