"""
The four calls of the original contract: list, load, run, unload.

Transport only. What the calls do is in `registry/lifecycle.py` and `inference/run.py`.
"""

from dataclasses import asdict

from fastapi import APIRouter, Request, Response

from gateway.access.headers import rollout_key
from gateway.api.callers import Actor, CallerOf, asked_by
from gateway.api.request_ids import request_id_of
from gateway.api.rest.dependencies import ServicesOf, services_of
from gateway.api.rest.image_bodies import OTHER_BODIES, ImageBodies
from gateway.api.rest.parameters import (
    Alias,
    Name,
    PathName,
    RolloutKey,
    Softmax,
    TopK,
    Version,
    error_responses,
)
from gateway.api.rest.schemas import (
    BatchResponse,
    ErrorResponse,
    RunRequest,
    RunResponse,
    ScoreResponse,
)
from gateway.inference.batch import Batch, ImageResult, run_batch
from gateway.inference.pinned import read_version
from gateway.inference.request import Prediction
from gateway.inference.tasks.classify import best
from gateway.inference.tensor_answer import TensorAnswer
from gateway.telemetry.observation import observation_of

router = APIRouter(prefix="/api/v1", tags=["models"], route_class=ImageBodies)


@router.get("/list", summary="List the models")
async def list_models(services: ServicesOf, caller: CallerOf) -> list[str]:
    """Name every registered model, loaded or not."""
    return [name for name in services.registry.catalog.names() if caller.sees(name)]


@router.post(
    "/load", summary="Load a model", responses=error_responses(404, 409, 422, 502, 503, 504)
)
async def load_model(
    services: ServicesOf, actor: Actor, name: Name, version: Version = None
) -> int:
    """Load a model on every replica and wait until it is ready. Already loaded is fine too."""
    await services.load(name, read_version(version), actor=actor)
    return 200


@router.post(
    "/unload", summary="Unload a model", responses=error_responses(404, 409, 422, 503, 504)
)
async def unload_model(
    services: ServicesOf, actor: Actor, name: Name, version: Version = None
) -> int:
    """Unload a model from every replica. Requests that are under way finish."""
    await services.lifecycle.unload(name, read_version(version), actor=actor)
    return 200


@router.post(
    "/run/{name}",
    summary="Classify an image",
    responses=error_responses(404, 409, 413, 422, 429, 502, 503, 504),
    # Without new parameters, the answer is to the letter what it always was.
    response_model_exclude_unset=True,
    openapi_extra=OTHER_BODIES,
)
async def run_model(
    request: Request,
    response: Response,
    name: PathName,
    body: RunRequest,
    version: Version = None,
    alias: Alias = None,
    top_k: TopK = None,
    softmax: Softmax = False,
    x_rollout_key: RolloutKey = None,  # noqa: ARG001 - described here, read by `rollout_key`
) -> RunResponse | BatchResponse:
    """
    Classify an image by a model's champion, or by the version or alias that is asked for.

    The body is JSON with the image in base64, or the image itself with its content type, or a form
    with a part `image`. Several images, as `{"images": [...]}` or as several parts of a form, are
    answered by `{"results": [...]}`, in order.

    With `top_k` the answer also holds the largest scores, and the names of their classes if the
    version was registered with labels.
    """
    services, seen = await services_of(request), observation_of(request.scope)
    pinned, request_id = read_version(version), request_id_of(request.scope)
    key = rollout_key(request.scope["headers"])
    share = services.share_of(asked_by(request.scope))
    if body.several is not None:
        batch = await run_batch(
            services.runner,
            name,
            body.several,
            most=services.settings.max_batch_images,
            version=pinned,
            alias=alias,
            request_id=request_id,
            key=key,
            share=share,
            seen=seen,
        )
        response.raw_headers.extend(answer_headers(batch))
        return BatchResponse(results=[_result(r, top_k, softmax=softmax) for r in batch.results])
    prediction = await services.runner.run(
        name,
        body.image,
        version=pinned,
        alias=alias,
        request_id=request_id,
        key=key,
        share=share,
        seen=seen,
    )
    seen.category = prediction.category
    response.raw_headers.extend(answer_headers(prediction))
    return _answer(prediction, top_k, softmax=softmax)


def _result(
    result: ImageResult, top_k: int | None, *, softmax: bool
) -> RunResponse | ErrorResponse:
    if isinstance(result.answer, Prediction):
        return _answer(result.answer, top_k, softmax=softmax)
    error = result.answer
    return ErrorResponse(detail=error.detail, code=error.code, request_id=result.request_id)


def _answer(prediction: Prediction, top_k: int | None, *, softmax: bool) -> RunResponse:
    if top_k is None:
        return RunResponse(category=prediction.category)
    chosen = prediction.chosen
    # What are probabilities already is not squeezed a second time.
    scores = best(
        prediction.scores,
        top_k,
        labels=chosen.labels,
        softmax=softmax and chosen.scores != "probabilities",
    )
    return RunResponse(
        category=prediction.category, scores=[ScoreResponse(**asdict(score)) for score in scores]
    )


def answer_headers(answer: Prediction | Batch | TensorAnswer) -> list[tuple[bytes, bytes]]:
    """Say which version answered, and how long each stage took, in milliseconds."""
    stages = answer.stages
    timing = (
        f"decode;dur={stages.decode_s * 1000:.2f}, "
        f"queue;dur={stages.queue_s * 1000:.2f}, "
        f"infer;dur={stages.infer_s * 1000:.2f}"
    )
    return [(b"x-model-version", b"%d" % answer.version), (b"server-timing", timing.encode())]
