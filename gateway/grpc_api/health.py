"""
`grpc.health.v1`: what load balancers and Kubernetes ask. The service "" and the protocol's own are
what `/readyz` says; the name of a model says whether an inference of it would be answered, to
callers who see it.

Source: gRPC, "GRPC Health Checking Protocol".
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc

from gateway.access.headers import shown_key
from gateway.access.roles import Role
from gateway.errors import GatewayError
from gateway.grpc_api.calls import headers_of
from gateway.grpc_api.health_messages import (
    NOT_SERVING,
    SERVICE,
    SERVICE_UNKNOWN,
    SERVING,
    HealthCheckRequest,
    HealthCheckResponse,
)
from gateway.services import Services

_LOOK_EVERY_S = 1.0
_SERVICES = {"", "inference.GRPCInferenceService"}


class Health:
    """Says how the gateway is when it is asked."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def handlers(self) -> Any:
        """Make what a server is given."""
        kinds = {
            "request_deserializer": HealthCheckRequest.FromString,
            "response_serializer": HealthCheckResponse.SerializeToString,
        }
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Check": grpc.unary_unary_rpc_method_handler(self.check, **kinds),
                "Watch": grpc.unary_stream_rpc_method_handler(self.watch, **kinds),
            },
        )

    async def check(self, request: Any, context: Any) -> Any:
        """Answer once."""
        status = await self._status(request.service, context)
        if status == SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "There is no such service.")
        return HealthCheckResponse(status=status)

    async def watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Answer now, and whenever it changes; looks once a second."""
        sent = None
        while True:
            status = await self._status(request.service, context)
            if status != sent:
                sent = status
                yield HealthCheckResponse(status=status)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _status(self, service: str, context: Any) -> int:
        if service in _SERVICES:
            checks = (await self._services.health.ready()).values()
            ready = all(check.ok for check in checks)
            return SERVING if ready else NOT_SERVING
        try:
            shown = shown_key(headers_of(context))
            await self._services.keyring.learn(shown)
            caller = self._services.keyring.caller(shown, time.time())
            caller.require(Role.INFER)
        except GatewayError:
            return SERVICE_UNKNOWN
        if service not in self._services.registry.catalog.models or not caller.sees(service):
            return SERVICE_UNKNOWN
        try:
            self._services.tensors.choose(service, version=None, alias=None)
        except GatewayError:
            return NOT_SERVING
        return SERVING
