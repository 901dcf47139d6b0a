"""
V2 about the repository: what is there, load, unload. As with the original calls, `load` loads the
champion, and the answer comes when every replica has it ready.

Source: Triton, Model Repository Extension.
"""

from dataclasses import asdict
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from gateway.api.callers import Actor, CallerOf
from gateway.api.rest.dependencies import ServicesOf
from gateway.api.rest.parameters import error_responses
from gateway.api.v2.versions import PathName
from gateway.errors import TensorInvalid
from gateway.inference.describe import repository_index
from gateway.inference.pinned import named_version, read_load

router = APIRouter(prefix="/v2/repository", tags=["open inference protocol"])


@router.post("/index", summary="List every version and its state")
async def v2_index(
    request: Request, services: ServicesOf, caller: CallerOf
) -> list[dict[str, str]]:
    """List versions with Triton's states; with `{"ready": true}` only those that are ready."""
    only_ready = bool((await _options(request)).get("ready"))
    return [
        {**asdict(line), "version": str(line.version)}
        for line in repository_index(services.registry.catalog, services.replicas)
        if caller.sees(line.name) and (line.state == "READY" or not only_ready)
    ]


@router.post(
    "/models/{name}/load",
    summary="Load",
    response_class=Response,
    responses=error_responses(404, 409, 422, 502, 503, 504),
)
async def v2_load(request: Request, services: ServicesOf, actor: Actor, name: PathName) -> Response:
    """
    Load the champion, or the version that the parameter `version` names, on every replica.

    The configuration and the files of a version are what was registered: `config` and `file:…` are
    refused.
    """
    await services.load(name, read_load(await _parameters(request)), actor=actor)
    return Response()


@router.post(
    "/models/{name}/unload",
    summary="Unload",
    response_class=Response,
    responses=error_responses(404, 409, 422, 503, 504),
)
async def v2_unload(
    request: Request, services: ServicesOf, actor: Actor, name: PathName
) -> Response:
    """Unload a model, or the version that the parameter `version` names, from every replica."""
    number = named_version(await _parameters(request))
    await services.lifecycle.unload(name, number, actor=actor)
    return Response()


async def _options(request: Request) -> dict[str, Any]:
    # Clients send JSON under any content type here, or nothing.
    body = await request.body()
    try:
        options = orjson.loads(body) if body else {}
    except ValueError:
        raise TensorInvalid("The body is no JSON.") from None
    if not isinstance(options, dict):
        raise TensorInvalid("The body is a JSON object.")
    return options


async def _parameters(request: Request) -> dict[str, Any]:
    parameters = (await _options(request)).get("parameters") or {}
    if not isinstance(parameters, dict):
        raise TensorInvalid("`parameters` is an object.")
    return parameters
