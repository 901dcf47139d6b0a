"""What the routes ask for: the services that live as long as the app."""

from typing import Annotated

from fastapi import Depends, Request

from gateway.api.request_context import request_id_of
from gateway.services import Services
from gateway.telemetry.observation import Observation, observation_of


def services_of(request: Request) -> Services:
    """Return the app's services; they are open whenever a request arrives."""
    services: Services = request.app.state.services
    return services


def _request_id(request: Request) -> str:
    return request_id_of(request.scope)


def _seen(request: Request) -> Observation:
    return observation_of(request.scope)


ServicesOf = Annotated[Services, Depends(services_of)]
RequestId = Annotated[str, Depends(_request_id)]
Seen = Annotated[Observation, Depends(_seen)]
