"""The app: middleware, routers, and the services that live as long as it does."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi_offline import FastAPIOffline

from gateway import __version__
from gateway.api import errors
from gateway.api.middleware.authorization import Authorization
from gateway.api.middleware.body_limit import BodyLimitErrors
from gateway.api.middleware.head_as_get import HeadAsGet
from gateway.api.middleware.metering import Metering
from gateway.api.middleware.page_headers import PageHeaders
from gateway.api.middleware.request_context import RequestContext
from gateway.api.middleware.tracing import Tracing
from gateway.api.middleware.worker_answers import WorkerAnswers
from gateway.api.openapi import describe, operation_id
from gateway.api.rest import (
    audit,
    contract,
    evaluations,
    health,
    keys,
    login,
    metrics,
    models,
    optimizations,
    registration,
    replays,
    rollout_forecasts,
    rollouts,
)
from gateway.api.rules import Rulebook, routes_of, rules_of
from gateway.api.sites import Sites
from gateway.api.v2 import models as v2_models
from gateway.api.v2 import repository, server
from gateway.control_plane import ControlPlane
from gateway.services import open_services
from gateway.settings import Settings
from gateway.telemetry.tracing import open_tracing

_DESCRIPTION = """
Serves ONNX image classifiers over NVIDIA Triton. Every error has one shape:
`{"detail": …, "code": "…", "request_id": "…"}`; `code` is stable. Answers of 429 and 503 carry
`Retry-After`. Every answer carries `X-Request-ID`.
"""


def create_app(
    settings: Settings, *, plane: ControlPlane | None = None, worker: int | None = None
) -> FastAPI:
    """
    Make the app. Nothing is opened before its lifespan begins.

    Args:
        settings: The settings of this process.
        plane: Who loads models; by default this process.
        worker: The number of this process, of one of several.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with open_tracing(settings.otel_exporter_otlp_endpoint) as app.state.tracer:
            async with open_services(settings, plane=plane) as services:
                app.state.services = services
                yield

    # The pages of /docs and /redoc come with their scripts, so that they work with no internet.
    app = FastAPIOffline(
        title="onnx-gateway",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        generate_unique_id_function=operation_id,
        # The original server's clients may send JSON without saying so.
        strict_content_type=False,
    )
    routers = [
        contract.router,
        models.router,
        registration.create_router(settings),
        metrics.router,
        rollouts.router,
        rollout_forecasts.router,
        evaluations.router,
        replays.router,
        optimizations.router,
        keys.router,
        login.router,
        audit.router,
        health.router,
        server.router,
        v2_models.router,
        repository.router,
    ]
    for router in routers:
        # A route that takes files has a larger limit of its own.
        app.include_router(router, max_body_size=settings.max_body_bytes)
    errors.install(app)
    describe(app)
    app.add_middleware(BodyLimitErrors)
    app.state.sites = Sites(settings.allowed_hosts, settings.cors_origins, settings.host)
    rulebook = Rulebook(routes_of(app), rules_of(metrics_public=settings.metrics_public))
    app.state.rulebook = rulebook
    app.add_middleware(Authorization, rulebook=rulebook, sites=app.state.sites)
    if settings.cors_origins:
        app.add_middleware(CORSMiddleware, **_cors(settings))
    app.add_middleware(PageHeaders)
    if worker is not None:
        app.add_middleware(WorkerAnswers, number=worker)
    app.add_middleware(RequestContext)
    if settings.otel_exporter_otlp_endpoint:
        app.add_middleware(Tracing)
    app.add_middleware(Metering)
    app.add_middleware(HeadAsGet)
    return app


def _cors(settings: Settings) -> dict[str, Any]:
    """Let pages of the listed origins in, and read what answers say."""
    return {
        "allow_origins": settings.cors_origins,
        "allow_methods": ["GET", "POST", "PUT", "DELETE"],
        "allow_headers": [
            "Authorization",
            "X-API-Key",
            "X-Request-ID",
            "X-Rollout-Key",
            "If-Match",
        ],
        "expose_headers": [
            "X-Request-ID",
            "X-Model-Version",
            "Server-Timing",
            "Retry-After",
            "ETag",
        ],
    }
