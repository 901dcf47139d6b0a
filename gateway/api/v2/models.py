"""
V2 about one model: ready, metadata, configuration, statistics, inference; each with and without
`/versions/V`, where V is a number or an alias.

Transport only: what an inference does is in `inference/tensors.py`.

Source: Open Inference Protocol, REST; Triton, Model Configuration and Statistics Extensions.
"""

from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from gateway.access.headers import rollout_key
from gateway.api.callers import asked_by
from gateway.api.request_ids import request_id_of
from gateway.api.rest.contract import answer_headers
from gateway.api.rest.dependencies import ServicesOf
from gateway.api.rest.parameters import error_responses
from gateway.api.v2.bodies import receive, respond
from gateway.api.v2.versions import PathName, PinnedOf
from gateway.inference.pinned import Pinned
from gateway.services import Services
from gateway.telemetry.observation import observation_of

router = APIRouter(prefix="/v2/models", tags=["open inference protocol"])

_ERRORS = error_responses(404, 409, 422, 429, 502, 503, 504)
_JSON = "application/json"


def _both(path: str) -> tuple[str, str]:
    return f"/{{name}}{path}", f"/{{name}}/versions/{{version}}{path}"


@router.get("/stats", summary="Count what Triton did for every version")
async def v2_all_statistics(services: ServicesOf) -> Response:
    """Add up the statistics of all replicas."""
    return _json({"model_stats": await services.tensors.statistics()})


@router.get(_both("/ready")[0], summary="Would the model answer?", responses=_ERRORS)
@router.get(_both("/ready")[1], summary="Would the version answer?", responses=_ERRORS)
async def v2_model_ready(services: ServicesOf, name: PathName, pinned: PinnedOf) -> Response:
    """Answer 200 if an inference would be answered now."""
    chosen = services.tensors.choose(name, version=pinned.version, alias=pinned.alias)
    return _json({"name": name, "ready": True, "version": str(chosen.version)})


@router.get(_both("")[0], summary="Describe the model", responses=_ERRORS)
@router.get(_both("")[1], summary="Describe the version", responses=_ERRORS)
async def v2_metadata(services: ServicesOf, name: PathName, pinned: PinnedOf) -> Response:
    """Say what Triton says: inputs, outputs, platform, versions that are loaded."""
    return await _described(services, name, pinned, "")


@router.get(_both("/config")[0], summary="The model's configuration", responses=_ERRORS)
@router.get(_both("/config")[1], summary="The version's configuration", responses=_ERRORS)
async def v2_configuration(services: ServicesOf, name: PathName, pinned: PinnedOf) -> Response:
    """Say what Triton says: its ModelConfig as JSON."""
    return await _described(services, name, pinned, "/config")


@router.get(_both("/stats")[0], summary="Count what Triton did", responses=_ERRORS)
@router.get(_both("/stats")[1], summary="Count what Triton did", responses=_ERRORS)
async def v2_statistics(services: ServicesOf, name: PathName, pinned: PinnedOf) -> Response:
    """Add up the statistics of all replicas: of a version, or of all versions of the model."""
    chosen = services.tensors.choose(name, version=pinned.version, alias=pinned.alias)
    of = None if pinned == (None, None) else chosen.version
    return _json({"model_stats": await services.tensors.statistics(name, of)})


@router.post(_both("/infer")[0], summary="Infer", responses=_ERRORS)
@router.post(_both("/infer")[1], summary="Infer by a version", responses=_ERRORS)
async def v2_infer(
    request: Request,
    services: ServicesOf,
    name: PathName,
    pinned: PinnedOf,
) -> Response:
    """
    Run tensors through a model, as JSON or by the binary data extension.

    A model with an image input also takes a BYTES tensor of shape [N] whose elements are image
    files. With `Inference-Header-Content-Length: 0` the body is one image file.
    """
    chosen = services.tensors.choose(name, version=pinned.version, alias=pinned.alias)
    limit_bytes = services.settings.max_body_bytes
    inference = await receive(request, chosen, limit_bytes=limit_bytes)
    answer = await services.tensors.infer(
        name,
        inference,
        version=pinned.version,
        alias=pinned.alias,
        request_id=request_id_of(request.scope),
        key=rollout_key(request.scope["headers"]),
        share=services.share_of(asked_by(request.scope)),
        seen=observation_of(request.scope),
    )
    response = respond(answer, inference)
    response.raw_headers.extend(answer_headers(answer))
    return response


async def _described(services: Services, name: str, pinned: Pinned, what: str) -> Response:
    chosen = services.tensors.choose(name, version=pinned.version, alias=pinned.alias)
    return _json(await services.tensors.describe(chosen, what))


def _json(said: dict[str, Any]) -> Response:
    return Response(orjson.dumps(said), media_type=_JSON)
