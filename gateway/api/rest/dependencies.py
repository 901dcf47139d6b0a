"""What the routes ask for: the services that live as long as the app."""

from typing import Annotated

from fastapi import Depends, Request

from gateway.services import Services


# A coroutine, though it waits for nothing: the framework calls a plain function in a thread.
async def services_of(request: Request) -> Services:
    """Return the app's services; they are open whenever a request arrives."""
    services: Services = request.app.state.services
    return services


ServicesOf = Annotated[Services, Depends(services_of)]
