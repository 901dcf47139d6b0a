"""`POST /api/v1/register`: a new model, or a new version of one."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from gateway.api.callers import Actor
from gateway.api.rest.dependencies import ServicesOf
from gateway.api.rest.parameters import error_responses
from gateway.api.rest.uploads import FORM_OVERHEAD_BYTES, receive
from gateway.converter.signature import TensorSignature
from gateway.errors import NameInvalid, OptionUnknown, UploadInvalid
from gateway.registry.labels import read_labels
from gateway.registry.registration import Registered
from gateway.registry.versions import ModelVersion
from gateway.settings import Settings

_FLAG = TypeAdapter(bool)
_OPTIONS = ("name", "model_name", "labels", "preprocessing", "keep_graph", "load")
_PREPROCESSING = "raw, imagenet, unit, a record as JSON, or proposed: take the proposal."
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "labels": {"type": "string", "description": "One class name a line."},
                        "preprocessing": {
                            "type": "string",
                            "description": _PREPROCESSING,
                        },
                        "sidecar": {
                            "type": "array",
                            "items": {"type": "string"},
                            "description": (
                                "preprocessor_config.json or config.json of Transformers or timm: "
                                "what they say is proposed."
                            ),
                        },
                        "keep_graph": {
                            "type": "boolean",
                            "description": "Publish the graph as it is.",
                        },
                        "load": {"type": "boolean", "description": "Load the version, too."},
                    },
                }
            },
        },
    }
}


class TensorResponse(BaseModel):
    """One input or output of a model."""

    name: str = Field(description="The tensor's name in the graph.")
    dtype: str = Field(description="Its datatype, as Triton spells it.", examples=["FP32"])
    shape: list[int | None] = Field(
        description="Its sizes, the batch axis included; null: any.",
        examples=[[None, None, None, 3]],
    )


class ProposalResponse(BaseModel):
    """What the file's metadata, or a sidecar, says. `preprocessing=proposed` takes it."""

    preprocessing: dict[str, Any] | None = Field(
        description="The record; null: none, or raw pixels."
    )
    labels: list[str] | None = Field(description="The class names; null: none.")
    sources: list[str] = Field(
        description="Where each comes from.",
        examples=[["preprocessing: preprocessor_config.json (Transformers)"]],
    )


class RegisterResponse(BaseModel):
    """The version that the upload is now."""

    message: str = Field(
        description="`Model registered successfully`, or `Model already registered`.",
        examples=["Model registered successfully"],
    )
    name: str = Field(description="The model's name.", examples=["flowers"])
    version: int = Field(description="The version's number.", examples=[1])
    digest: str = Field(description="Of the published file.", examples=["sha256:9f86d081…"])
    source_digest: str = Field(description="Of the uploaded file.", examples=["sha256:9f86d081…"])
    size_bytes: int = Field(description="Of the published file.", examples=[18623452])
    changes: list[str] = Field(
        description="What is other than in the uploaded file, a sentence each."
    )
    inputs: list[TensorResponse] = Field(description="What the model takes.")
    outputs: list[TensorResponse] = Field(description="What it answers; the first is the scores.")
    classes: int | None = Field(description="How many classes it tells apart.", examples=[10])
    labels: bool = Field(description="Whether the classes have names.")
    preprocessing: dict[str, Any] | None = Field(
        description="How images become the input; null: raw pixels, or none is known."
    )
    warnings: list[str] = Field(description="What validation found worth knowing.")
    proposal: ProposalResponse | None = Field(
        description="What the file or a sidecar says of preprocessing and classes; null: nothing."
    )
    loaded: bool = Field(description="Whether the version was loaded, because `load` said so.")


def create_router(settings: Settings) -> APIRouter:
    """Make the router; the size of an upload is bounded by a setting of its own."""
    router = APIRouter(prefix="/api/v1", tags=["registration"])
    router.add_api_route(
        "/register",
        register_model,
        methods=["POST"],
        summary="Register a model",
        responses=error_responses(409, 413, 422, 429, 503, 507),
        openapi_extra=_BODY,
        max_body_size=settings.max_model_bytes + FORM_OVERHEAD_BYTES,
    )
    return router


async def register_model(
    services: ServicesOf,
    actor: Actor,
    request: Request,
    name: Annotated[
        str | None, Query(description="Name of the model, new or not.", examples=["flowers"])
    ] = None,
    model_name: Annotated[str | None, Query(description="The same as `name`.")] = None,
    labels: Annotated[str | None, Query(description="Class names, one a line.")] = None,
    preprocessing: Annotated[str | None, Query(description=_PREPROCESSING)] = None,
    keep_graph: Annotated[
        bool | None,
        Query(
            description=(
                "true: publish the graph as it is. false: with a uint8 input where that is exact. "
                "Left out: the latter, unless KEEP_GRAPH is set or the champion takes what the "
                "graph takes."
            )
        ),
    ] = None,
    load: Annotated[bool, Query(description="Load the version, too.")] = False,
) -> RegisterResponse:
    """
    Validate an ONNX model and publish it as the next version of a model.

    The body is the file, or a multipart form with it as the part `file`. The first version becomes
    champion; a later one moves no alias. The same bytes with the same record again: the version
    that they are already.
    """
    registration = services.registration
    _check_options(request.query_params)
    chosen = name or model_name
    if chosen is not None:
        registration.check_name(chosen)
    with registration.places.admit(), registration.staging.folder() as folder:
        received = await receive(
            request,
            folder,
            limit_bytes=services.settings.max_model_bytes,
            idle_timeout_s=services.settings.upload_idle_timeout_s,
        )
        fields = received.fields
        _check_options(fields)
        chosen = chosen or fields.get("name") or fields.get("model_name")
        if not chosen:
            raise NameInvalid("Say which model this is: register?name=NAME.")
        registered = await registration.register(
            received.upload,
            name=chosen,
            preprocessing=preprocessing or fields.get("preprocessing"),
            labels=read_labels(labels if labels is not None else fields.get("labels")),
            keep_graph=_keep_graph(keep_graph, fields.get("keep_graph"), services.settings),
            actor=actor,
        )
    load = load or bool(_flag("load", fields.get("load")))
    if load:
        await services.lifecycle.load(chosen, registered.version.version, actor=actor)
    return _answer(registered, loaded=load)


def _check_options(given: Iterable[str]) -> None:
    """
    Check that nothing was said that would not be heard.

    Raises:
        OptionUnknown: It would not; the text names the nearest option.
    """
    for name in given:
        if name not in _OPTIONS:
            near = get_close_matches(name, _OPTIONS, n=1)
            hint = f" Did you mean {near[0]}?" if near else f" There are {', '.join(_OPTIONS)}."
            raise OptionUnknown(f"There is no option {name[:40]!r}.{hint}")


def _keep_graph(asked: bool | None, field: str | None, settings: Settings) -> bool | None:
    """Take what the caller says, in the query or the form; else what is set."""
    if asked is None:
        asked = _flag("keep_graph", field)
    return asked if asked is not None else settings.keep_graph or None


def _flag(name: str, field: str | None) -> bool | None:
    if field is None:
        return None
    try:
        return _FLAG.validate_python(field.strip())
    except ValidationError as error:
        raise UploadInvalid(f"{name} is neither true nor false.") from error


def tensors_of(version: ModelVersion) -> tuple[list[TensorResponse], list[TensorResponse]]:
    """Describe a version's inputs and outputs."""
    signature = version.signature
    return (
        [_tensor(each) for each in signature.inputs],
        [
            TensorResponse(name=t.name, dtype=t.dtype, shape=list(t.shape))
            for t in signature.outputs
        ],
    )


def _tensor(tensor: TensorSignature) -> TensorResponse:
    return TensorResponse(name=tensor.name, dtype=tensor.dtype, shape=list(tensor.shape))


def _answer(registered: Registered, *, loaded: bool) -> RegisterResponse:
    version = registered.version
    inputs, outputs = tensors_of(version)
    return RegisterResponse(
        message=(
            "Model registered successfully" if registered.created else "Model already registered"
        ),
        name=version.model,
        version=version.version,
        digest=version.digest,
        source_digest=version.source_digest,
        size_bytes=version.size_bytes,
        changes=list(version.changes),
        inputs=inputs,
        outputs=outputs,
        classes=version.classes,
        labels=version.labels is not None,
        preprocessing=(
            None if version.preprocessing is None else version.preprocessing.model_dump(mode="json")
        ),
        warnings=list(registered.warnings),
        proposal=(
            None
            if registered.proposal is None
            else ProposalResponse.model_validate(registered.proposal)
        ),
        loaded=loaded,
    )
