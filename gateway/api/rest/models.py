"""Models, their versions and their aliases: what is there, where it is loaded, and what may go."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Response
from pydantic import BaseModel, Field

from gateway.api.callers import Actor, CallerOf
from gateway.api.rest.dependencies import ServicesOf
from gateway.api.rest.json_types import Whole
from gateway.api.rest.parameters import PathName, PathVersion, error_responses
from gateway.api.rest.registration import TensorResponse, tensors_of
from gateway.inference.pinned import read_version
from gateway.registry.versions import Model, ModelVersion
from gateway.services import Services

router = APIRouter(prefix="/api/v1/models", tags=["models"])

PathAlias = Annotated[str, Path(description="An alias.", examples=["challenger"])]
IfMatch = Annotated[
    str | None,
    Header(
        description="The alias's generation as last seen; refused if it moved since.",
        pattern=r'^(\*|"?[0-9]{1,9}"?)$',
        examples=['"3"'],
    ),
]


class StateResponse(BaseModel):
    """What one replica says of one version."""

    state: str = Field(
        description="READY, LOADING, UNAVAILABLE or UNLOADED, as Triton spells it.",
        examples=["READY"],
    )
    reason: str = Field("", description="Why it is not ready.")


class ModelResponse(BaseModel):
    """A model."""

    name: str = Field(description="Its name.", examples=["flowers"])
    source: str = Field(description="Where it came from: upload, repository, models_dir.")
    versions: list[int] = Field(description="Its versions.", examples=[[1, 2]])
    aliases: dict[str, int] = Field(
        description="Which version each alias names.", examples=[{"champion": 1}]
    )
    alias_generations: dict[str, int] = Field(
        description="How often each alias has been moved: what `If-Match` compares."
    )
    loaded: list[int] = Field(description="Versions that should be loaded on every replica.")
    quarantined: dict[int, str] = Field(description="Versions that are kept out, and why.")
    replicas: dict[str, dict[int, StateResponse]] = Field(
        description="By replica, the state of each version there."
    )


class VersionResponse(BaseModel):
    """A version of a model."""

    name: str = Field(description="The model's name.", examples=["flowers"])
    version: int = Field(description="Its number.", examples=[2])
    aliases: list[str] = Field(description="The aliases that name it.")
    loaded: bool = Field(description="Whether it should be loaded.")
    digest: str = Field(description="Of the published file.", examples=["sha256:9f86d081…"])
    source_digest: str = Field(description="Of the file that was given.")
    size_bytes: int = Field(description="Of the published file.")
    changes: list[str] = Field(
        description="What is other than in the file that was given, a sentence each."
    )
    created_at: datetime = Field(description="When it was recorded, UTC.")
    source: str = Field(description="Where it came from: upload, repository, models_dir.")
    inputs: list[TensorResponse] = Field(description="What it takes.")
    outputs: list[TensorResponse] = Field(description="What it answers; the first is the scores.")
    classes: int | None = Field(description="How many classes it tells apart.")
    labels: list[str] | None = Field(description="The names of its classes.")
    preprocessing: dict[str, Any] | None = Field(
        description="How images become the input; null: raw pixels, or none is known."
    )
    scores: str | None = Field(description="Whether it answers logits or probabilities.")


class VersionDetailResponse(VersionResponse):
    """A version, and what validation found out about it."""

    validation: dict[str, Any] | None = Field(
        description="The report, stage by stage; null if it was not uploaded here."
    )


class DeletedResponse(BaseModel):
    """What was deleted."""

    message: str = Field(description="What was done.", examples=["Version deleted"])
    name: str = Field(description="The model's name.")
    versions: list[int] = Field(description="The versions; their numbers are not used again.")


class AliasRequest(BaseModel):
    """Where an alias is to point."""

    version: Whole = Field(description="The version that it names from now on.", examples=[2], ge=1)
    generation: Whole | None = Field(
        None, ge=0, description="The generation as last seen, 0 for none: as `If-Match`."
    )


class AliasResponse(BaseModel):
    """An alias."""

    alias: str = Field(examples=["champion"], description="Its name.")
    version: int = Field(description="The version that it names.")
    generation: int = Field(description="How often it has been moved.")


@router.get("", summary="Show every model")
async def show_models(services: ServicesOf, caller: CallerOf) -> list[ModelResponse]:
    """Show all models: versions, aliases, what is loaded where."""
    models = services.registry.catalog.models
    return [_model(services, models[name]) for name in sorted(models) if caller.sees(name)]


@router.get("/{name}", summary="Show a model", responses=error_responses(404))
async def show_model(services: ServicesOf, name: PathName) -> ModelResponse:
    """Show one model."""
    return _model(services, services.registry.catalog.model(name))


@router.delete("/{name}", summary="Delete a model", responses=error_responses(404, 409, 503))
async def delete_model(services: ServicesOf, actor: Actor, name: PathName) -> DeletedResponse:
    """Delete a model with all its versions. Refused while an alias or a load holds one of them."""
    versions = sorted(services.registry.catalog.model(name).versions)
    await services.registration.remove(name, versions, whole=True, actor=actor)
    return DeletedResponse(message="Model deleted", name=name, versions=versions)


@router.get("/{name}/versions", summary="Show its versions", responses=error_responses(404))
async def show_versions(services: ServicesOf, name: PathName) -> list[VersionResponse]:
    """Show every version of a model, the oldest first."""
    model = services.registry.catalog.model(name)
    return [VersionResponse(**_version(model, model.versions[v])) for v in sorted(model.versions)]


@router.get(
    "/{name}/versions/{version}",
    summary="Show a version",
    responses=error_responses(404, 422, 503),
)
async def show_version(
    services: ServicesOf, name: PathName, version: PathVersion
) -> VersionDetailResponse:
    """Show one version and its validation report."""
    model = services.registry.catalog.model(name)
    number = _number(version)
    found = model.version(number)
    report = await services.registration.report(name, number)
    return VersionDetailResponse(**_version(model, found), validation=report)


@router.delete(
    "/{name}/versions/{version}",
    summary="Delete a version",
    responses=error_responses(404, 409, 422, 503),
)
async def delete_version(
    services: ServicesOf, actor: Actor, name: PathName, version: PathVersion
) -> DeletedResponse:
    """Delete a version. Refused while an alias or a load holds it. The number is not used again."""
    model = services.registry.catalog.model(name)
    number = model.version(_number(version)).version
    await services.registration.remove(name, [number], whole=len(model.versions) == 1, actor=actor)
    return DeletedResponse(message="Version deleted", name=name, versions=[number])


@router.put(
    "/{name}/aliases/{alias}",
    summary="Move an alias",
    responses=error_responses(404, 409, 422, 502, 503, 504),
)
async def move_alias(
    services: ServicesOf,
    actor: Actor,
    response: Response,
    name: PathName,
    alias: PathAlias,
    body: AliasRequest,
    if_match: IfMatch = None,
) -> AliasResponse:
    """
    Let an alias name another version, or make it. If it is what answers calls, the version is
    loaded first; if that fails, the alias stays.
    """
    expected = body.generation if if_match is None else _generation(if_match)
    generation = await services.aliases.move(
        name, alias, body.version, expected=expected, actor=actor
    )
    response.headers["ETag"] = f'"{generation}"'
    return AliasResponse(alias=alias, version=body.version, generation=generation)


@router.delete(
    "/{name}/aliases/{alias}",
    summary="Delete an alias",
    status_code=204,
    responses=error_responses(404, 409, 422, 503),
)
async def delete_alias(
    services: ServicesOf, actor: Actor, name: PathName, alias: PathAlias, if_match: IfMatch = None
) -> None:
    """Delete an alias; the version stays."""
    expected = None if if_match is None else _generation(if_match)
    await services.aliases.drop(name, alias, expected=expected, actor=actor)


def _number(text: str) -> int:
    number = read_version(text)
    assert number is not None  # only an absent version reads as None
    return number


def _generation(if_match: str) -> int | None:
    """Read `If-Match`: a generation in quotes, or `*` for any."""
    if if_match == "*":
        return None
    return int(if_match.strip('"'))


def _model(services: Services, model: Model) -> ModelResponse:
    return ModelResponse(
        name=model.name,
        source=model.source,
        versions=sorted(model.versions),
        aliases=dict(model.aliases),
        alias_generations=dict(model.alias_generations),
        loaded=sorted(model.desired),
        quarantined=dict(model.quarantined),
        replicas={
            replica.name: {
                number: _state(*services.loads.state(replica, model.name, number))
                for number in sorted(model.versions)
            }
            for replica in services.replicas
        },
    )


def _state(state: str, reason: str) -> StateResponse:
    return StateResponse(state=state, reason=reason)


def _version(model: Model, version: ModelVersion) -> dict[str, Any]:
    inputs, outputs = tensors_of(version)
    record = version.preprocessing
    return {
        "name": version.model,
        "version": version.version,
        "aliases": sorted(a for a, number in model.aliases.items() if number == version.version),
        "loaded": version.version in model.desired,
        "digest": version.digest,
        "source_digest": version.source_digest,
        "size_bytes": version.size_bytes,
        "changes": list(version.changes),
        "created_at": datetime.fromtimestamp(version.created_at_s, UTC),
        "source": version.source,
        "inputs": inputs,
        "outputs": outputs,
        "classes": version.classes,
        "labels": None if version.labels is None else list(version.labels),
        "preprocessing": None if record is None else record.model_dump(mode="json"),
        "scores": version.scores,
    }
