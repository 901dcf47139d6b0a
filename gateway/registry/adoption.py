"""
Adopt what lies in the repository and is not registered, so that a gateway with an empty database
can be put in front of an existing repository.
"""

import asyncio
from pathlib import Path

import structlog

from gateway.converter.errors import ToolError
from gateway.converter.layout import MODEL_FILE, published_versions, version_directory
from gateway.converter.names import parse_triton_model
from gateway.converter.place import check_model_place
from gateway.converter.published import PublishedVersion, read_published
from gateway.errors import VersionConflict
from gateway.registry.identity import record_digest
from gateway.registry.registry import Registry
from gateway.registry.versions import CHAMPION
from gateway.store.versions import NewVersion

log = structlog.get_logger(__name__)

REPOSITORY = "repository"
_ACTOR = "gateway"


async def adopt_repository(registry: Registry, repository: Path) -> list[str]:
    """
    Register every model of a repository that is not registered. Its highest version becomes
    champion.

    Returns:
        The names that were adopted.
    """
    adopted = []
    for name in await asyncio.to_thread(_list_repository, repository):
        if name in registry.catalog.models:
            continue
        try:
            versions = await asyncio.to_thread(_list_versions, repository, name)
            if not versions:
                continue
            for version in versions:
                published = await asyncio.to_thread(read_published, repository, name, version)
                aliases = [CHAMPION] if version == versions[-1] else []
                await registry.store.add_version(
                    new_version(published, REPOSITORY), actor=_ACTOR, aliases=aliases
                )
        except (ToolError, VersionConflict, OSError) as error:
            log.warning("model_skipped", model=name, source=REPOSITORY, reason=str(error))
        else:
            adopted.append(name)
            log.info("model_adopted", model=name, versions=versions)
    await registry.refresh()
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
    """Describe a published version as it is recorded."""
    return NewVersion(
        model=published.name,
        version=published.version,
        digest=published.digest,
        source_digest=published.source_digest,
        size_bytes=published.size_bytes,
        signature=published.signature.to_json(),
        config=published.config_text,
        changes=published.changes,
        source=source,
        record_digest=record_digest(None, None, kept_graph=published.kept_graph),
        scores=published.scores,
        trial_shape=published.trial_shape,
    )
