"""
Adopt what lies in the repository and is not registered, so that a gateway with an empty database
can be put in front of an existing repository, and a version that somebody put there by hand is
found. What cannot be adopted is named with the reason.
"""

import asyncio
from pathlib import Path
from typing import Literal

import structlog
from pydantic import BaseModel, Field, ValidationError

from gateway.converter.beside import RECORD_FILE
from gateway.converter.errors import ConfigInvalid, ConverterError
from gateway.converter.layout import MODEL_FILE, published_versions, version_directory
from gateway.converter.names import parse_triton_model
from gateway.converter.overlooked import overlooked_files, overlooked_in
from gateway.converter.place import check_model_place
from gateway.converter.published import PublishedVersion, read_published
from gateway.errors import VersionConflict
from gateway.preprocessing.record import Preprocessing
from gateway.registry.identity import record_digest
from gateway.registry.registry import Registry
from gateway.registry.versions import CHAMPION
from gateway.store.versions import NewVersion

log = structlog.get_logger(__name__)

REPOSITORY = "repository"
_ACTOR = "gateway"


class _Record(BaseModel):
    """What lies beside a version in the repository: see `record_of`."""

    preprocessing: Preprocessing | None = None
    kept_graph: bool = False
    scores: Literal["probabilities", "logits"] | None = None
    trial_shape: tuple[int, ...] | None = None
    changes: tuple[str, ...] = ()
    source_digest: str | None = Field(None, pattern="^sha256:[0-9a-f]{64}$")


async def adopt_repository(registry: Registry, repository: Path) -> list[str]:
    """
    Register every version of a repository that is not registered. Of a model that is not, the
    highest becomes champion; a version that was put beside registered ones becomes nothing.

    Returns:
        The names of the models that were adopted.
    """
    for reason in await asyncio.to_thread(overlooked_files, repository):
        log.warning("entry_overlooked", source=REPOSITORY, reason=reason)
    adopted = []
    for name in await asyncio.to_thread(_list_repository, repository):
        new = name not in registry.catalog.models
        try:
            versions = await _adopt_model(registry, repository, name)
            for reason in await asyncio.to_thread(overlooked_in, repository, name):
                log.warning("entry_overlooked", model=name, source=REPOSITORY, reason=reason)
        except (ConverterError, VersionConflict, OSError) as error:
            log.warning("model_skipped", model=name, source=REPOSITORY, reason=str(error))
            continue
        if versions:
            log.info("model_adopted", model=name, versions=versions)
            if new:
                adopted.append(name)
    await registry.refresh()
    return adopted


async def _adopt_model(registry: Registry, repository: Path, name: str) -> list[int]:
    """Register what is not registered of one model; return its versions."""
    there = await asyncio.to_thread(_list_versions, repository, name)
    model = registry.catalog.models.get(name)
    highest = 0 if model is None else await registry.store.highest_number(name)
    adopted = []
    for version in there:
        if model is not None and version in model.versions:
            continue
        if version <= highest:
            log.warning(
                "entry_overlooked",
                model=name,
                source=REPOSITORY,
                reason=f"The number {version} was given to a version that was deleted, or is being "
                f"published. To serve what lies there, name it {highest + 1}.",
            )
            continue
        published = await asyncio.to_thread(read_published, repository, name, version)
        aliases = [CHAMPION] if model is None and version == there[-1] else []
        new = await asyncio.to_thread(new_version, published, REPOSITORY)
        await registry.store.add_version(new, actor=_ACTOR, aliases=aliases)
        adopted.append(version)
    return adopted


def _list_repository(repository: Path) -> list[str]:
    """List what may be models: of every entry that is not hidden and no file."""
    if not repository.is_dir():
        return []
    return sorted(
        {
            parse_triton_model(entry.name)[0]
            for entry in repository.iterdir()
            if not entry.name.startswith(".") and not entry.is_file()
        }
    )


def _list_versions(repository: Path, name: str) -> list[int]:
    """List the versions of a model that have a file of their own."""
    check_model_place(repository, name)
    return [
        version
        for version in published_versions(repository, name)
        if (version_directory(repository, name, version) / MODEL_FILE).is_file()
    ]


def new_version(published: PublishedVersion, source: str) -> NewVersion:
    """
    Describe a published version as it is recorded: with the record beside it, if it was
    registered once.

    Raises:
        ConfigInvalid: The record cannot be read.
    """
    try:
        record = _Record.model_validate(published.record or {})
    except ValidationError as error:
        raise ConfigInvalid(
            f"The {RECORD_FILE} of version {published.version} of {published.name} cannot be read: "
            f"{error.errors()[0]['msg']}. Mend it, or remove it."
        ) from error
    given = record.preprocessing
    preprocessing = None if given is None else given.model_dump(mode="json")
    return NewVersion(
        model=published.name,
        version=published.version,
        digest=published.digest,
        source_digest=record.source_digest or published.source_digest,
        size_bytes=published.size_bytes,
        signature=published.signature.to_json(),
        config=published.config_text,
        changes=record.changes or published.changes,
        source=source,
        preprocessing=preprocessing,
        labels=published.labels,
        record_digest=record_digest(
            preprocessing,
            published.labels,
            kept_graph=record.kept_graph or published.kept_graph,
        ),
        scores=record.scores or published.scores,
        trial_shape=record.trial_shape or published.trial_shape,
    )
