"""
Where models come from at start: a flat folder of ONNX files (MODELS_DIR), or what already lies in
the repository.

With MODELS_DIR the folder is the truth: each NAME.onnx is available as NAME, a changed file becomes
a new version and takes over, a broken one is reported by name and skipped. The repository is then
only the place where versions are published. Without it, what lies in the repository and is not
registered is adopted, so that a gateway with an empty database can be put in front of an existing
repository.
"""

import asyncio
from pathlib import Path

import structlog
from watchfiles import awatch

from gateway.converter.digests import digest_file
from gateway.converter.errors import ToolError
from gateway.converter.layout import MODEL_FILE, version_directory
from gateway.converter.model_config import ConfigOptions, placement_for_machine
from gateway.converter.names import check_model_name, parse_triton_model
from gateway.converter.place import check_model_place
from gateway.converter.publish import (
    PublishedVersion,
    next_version,
    publish_version,
    published_versions,
    read_published,
)
from gateway.converter.uint8_input import InputPolicy
from gateway.errors import GatewayError, VersionConflict
from gateway.registry.identity import champion_input, find_version, record_digest
from gateway.registry.lifecycle import Lifecycle
from gateway.registry.registry import Registry
from gateway.registry.versions import CHAMPION
from gateway.store.versions import NewVersion
from gateway.triton.replicas import ReplicaSet

log = structlog.get_logger(__name__)

FOLDER = "models_dir"
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
                    _row(published, REPOSITORY), actor=_ACTOR, aliases=aliases
                )
        except (ToolError, VersionConflict, OSError) as error:
            log.warning("model_skipped", model=name, source=REPOSITORY, reason=str(error))
        else:
            adopted.append(name)
            log.info("model_adopted", model=name, versions=versions)
    await registry.refresh()
    return adopted


class ModelsFolder:
    """Keeps the registry in step with a flat folder of NAME.onnx files."""

    def __init__(
        self,
        folder: Path,
        repository: Path,
        registry: Registry,
        lifecycle: Lifecycle,
        replicas: ReplicaSet,
        *,
        keep_graph: bool = False,
    ) -> None:
        self._folder = folder
        self._repository = repository
        self._registry = registry
        self._lifecycle = lifecycle
        self._replicas = replicas
        self._keep_graph = True if keep_graph else None
        self._syncing = asyncio.Lock()
        self._reported: dict[str, str] = {}

    async def sync(self) -> None:
        """Publish what is new or changed. A file that cannot be published is reported once."""
        async with self._syncing:
            for path in await asyncio.to_thread(_list_folder, self._folder):
                try:
                    await self._sync_file(path)
                except (ToolError, GatewayError, OSError) as error:
                    self._report(path, str(error))
                else:
                    self._reported.pop(path.stem, None)

    async def follow(self) -> None:
        """Sync whenever the folder changes, for ever."""
        async for _ in awatch(self._folder, recursive=False):
            await self.sync()

    async def _sync_file(self, path: Path) -> None:
        name = check_model_name(path.stem)
        digest = await asyncio.to_thread(digest_file, path)
        model = self._registry.catalog.models.get(name)
        known = find_version(model, digest, keep_graph=self._keep_graph)
        version = await self._publish(path, name) if known is None else known.version
        await self._take_over(name, version)

    async def _publish(self, path: Path, name: str) -> int:
        free = await asyncio.to_thread(next_version, self._repository, name)
        version = max(free, await self._registry.store.highest_number(name) + 1)
        published = await asyncio.to_thread(
            publish_version,
            path,
            repository=self._repository,
            name=name,
            version=version,
            options=ConfigOptions(placement=placement_for_machine()),
            policy=InputPolicy(
                keep_graph=self._keep_graph,
                beside=champion_input(self._registry.catalog.models.get(name)),
            ),
        )
        await self._registry.store.add_version(_row(published, FOLDER), actor=_ACTOR)
        await self._registry.refresh()
        log.info("model_published", model=name, version=version, source=FOLDER)
        return version

    async def _take_over(self, name: str, version: int) -> None:
        """Make the folder's version the champion, loaded first if the champion is loaded."""
        model = self._registry.catalog.models.get(name)
        if model is None or model.champion.version == version:
            return
        previous = model.champion
        if previous.source not in {FOLDER, REPOSITORY}:
            # Somebody registered or promoted another version since: that decision stands.
            return
        swap = previous.version in model.desired
        if swap and self._replicas.live():
            await self._lifecycle.load(name, version, actor=_ACTOR)
        await self._registry.store.replace_champion(name, version, swap_desired=swap, actor=_ACTOR)
        await self._registry.refresh()

    def _report(self, path: Path, reason: str) -> None:
        if self._reported.get(path.stem) != reason:
            self._reported[path.stem] = reason
            log.warning("model_skipped", model=path.stem, source=FOLDER, reason=reason)


def _list_folder(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.onnx") if path.is_file())


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


def _row(published: PublishedVersion, source: str) -> NewVersion:
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
    )
