"""
A flat folder of ONNX files (MODELS_DIR), which is the truth: each NAME.onnx is available as NAME,
with the record and the class names beside it. What changes becomes a new version and takes over,
what is deleted is gone, what is broken is reported by name and skipped. The repository is then only
the place where versions are published.

The path is looked at again and again, and not watched: network and desktop mounts send no events,
and a watch follows the folder that was there, not the one that has taken its place.

What serves goes on until its successor was seen to be ready. A folder that cannot be read says
nothing about its models: they stay.
"""

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from gateway.converter.errors import ConverterError
from gateway.converter.mend import mend_version
from gateway.converter.merged import in_one_file
from gateway.converter.names import check_model_name
from gateway.converter.place import free_version
from gateway.converter.uint8_input import InputPolicy
from gateway.errors import GatewayError, Unavailable
from gateway.registry.adoption import REPOSITORY
from gateway.registry.artifacts import Artifacts
from gateway.registry.folder_files import FolderModel, Stamp, read_folder, read_model
from gateway.registry.folder_publishing import publish_found
from gateway.registry.identity import champion_input, find_version
from gateway.registry.lifecycle import Lifecycle
from gateway.registry.mending import arguments_of, irreparable
from gateway.registry.registry import Registry
from gateway.registry.versions import FOLDER, Model, ModelVersion
from gateway.triton.replicas import ReplicaSet

log = structlog.get_logger(__name__)

_ACTOR = "gateway"
_LOOK_S = 0.5
# A version that failed to take over is tried again: the replica may have been at fault.
_RETRY_S = 60.0


class ModelsFolder:
    """Keeps the registry in step with the folder."""

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
        self._artifacts = Artifacts(repository, registry)
        self._keep_graph = True if keep_graph else None
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._read: dict[str, tuple[Stamp, FolderModel]] = {}
        self._synced: dict[str, Stamp | None] = {}
        self._retry_at_s: dict[str, float] = {}
        self._reported: dict[str, str] = {}

    async def sync(self, name: str | None = None) -> None:
        """
        Bring the registry to what the folder holds right now, of one name or of all. A file that
        cannot be published is reported once.
        """
        stamps = await self._look()
        if stamps is None:
            return
        known = stamps.keys() | self._ours()
        for each in sorted(known if name is None else known & {name}):
            self._retry_at_s.pop(each, None)  # whoever asks wants it tried now
            await self._sync(each, stamps.get(each))

    async def follow(self) -> None:
        """Look at the folder for ever; what has changed is taken once it stands still."""
        before: Mapping[str, Stamp] | None = None
        while True:
            await asyncio.sleep(_LOOK_S)
            stamps = await self._look()
            if stamps is not None and before is not None:
                for name in sorted(stamps.keys() | self._ours()):
                    stamp = stamps.get(name)
                    if stamp == before.get(name) and self._is_due(name, stamp):
                        await self._sync(name, stamp)
            before = stamps

    def _ours(self) -> set[str]:
        models = self._registry.catalog.models
        return {name for name, model in models.items() if _follows_the_folder(model)}

    def _is_due(self, name: str, stamp: Stamp | None) -> bool:
        if name not in self._synced or self._synced[name] != stamp:
            return True
        retry_at_s = self._retry_at_s.get(name, math.inf)
        return time.monotonic() >= retry_at_s and bool(self._replicas.live())

    async def _look(self) -> Mapping[str, Stamp] | None:
        """Read what files there are; None where that cannot be told."""
        try:
            stamps = await asyncio.to_thread(read_folder, self._folder)
        except OSError as error:
            self._report("", f"The folder cannot be read: {error.strerror}")
            return None
        self._reported.pop("", None)
        return stamps

    async def _sync(self, name: str, stamp: Stamp | None) -> None:
        async with self._locks[name]:
            try:
                if stamp is None:
                    await self._remove(name)
                else:
                    await self._take(name, stamp)
            except Unavailable as error:
                self._report(name, str(error))  # and it is tried again at the next look
                return
            except (ConverterError, GatewayError, OSError) as error:
                self._report(name, str(error))
            else:
                self._reported.pop(name, None)
            self._synced[name] = stamp

    async def _take(self, name: str, stamp: Stamp) -> None:
        check_model_name(name)
        found = await self._read_model(name, stamp)
        if name not in self._registry.catalog.models and await self._registry.store.set_source(
            name, FOLDER
        ):
            await self._registry.refresh()
        model = self._registry.catalog.models.get(name)
        known = find_version(
            model,
            found.digest,
            preprocessing=found.preprocessing,
            labels=found.labels,
            keep_graph=self._keep_graph,
        )
        if known is None:
            number = await self._publish(found, name)
        else:
            number = known.version
            await self._mend(known, found.path)
        await self._take_over(name, number)

    async def _mend(self, version: ModelVersion, path: Path) -> None:
        """Put the published file back where it is damaged: its source lies in the folder."""
        if await self._artifacts.is_intact(version):
            return
        arguments = arguments_of(version)
        if await asyncio.to_thread(_mend_from, path, self._repository, arguments):
            log.info("version_mended", model=version.model, version=version.version)
        else:
            raise irreparable(version, "this release publishes another file of it")

    async def _read_model(self, name: str, stamp: Stamp) -> FolderModel:
        known = self._read.get(name)
        if known is None or known[0] != stamp:
            path = self._folder / f"{name}.onnx"
            known = self._read[name] = stamp, await asyncio.to_thread(read_model, path)
        return known[1]

    async def _publish(self, found: FolderModel, name: str) -> int:
        free = await asyncio.to_thread(free_version, self._repository, name)
        version = max(free, await self._registry.store.highest_number(name) + 1)
        policy = InputPolicy(
            keep_graph=self._keep_graph,
            beside=champion_input(self._registry.catalog.models.get(name)),
        )
        new = await asyncio.to_thread(publish_found, found, self._repository, name, version, policy)
        await self._registry.store.add_version(new, actor=_ACTOR)
        await self._registry.refresh()
        log.info("model_published", model=name, version=version, source=FOLDER)
        if found.proposal is not None:
            log.info(
                "preprocessing_proposed",
                model=name,
                sources=list(found.proposal.sources),
                take=f'{name}.json with {{"preset": "proposed"}}',
            )
        return version

    async def _take_over(self, name: str, version: int) -> None:
        """
        Make the folder's version the champion. Where the champion is loaded, this one is loaded
        first; if that fails, or nobody is there to load it, the champion stays for now.
        """
        model = self._registry.catalog.models.get(name)
        self._retry_at_s.pop(name, None)
        if model is None or model.champion.version == version:
            return
        previous = model.champion
        if previous.source not in {FOLDER, REPOSITORY}:
            # Somebody registered or promoted another version since: that decision stands.
            return
        swap = previous.version in model.desired
        if swap:
            self._retry_at_s[name] = 0.0
            if not self._replicas.live():
                return
            self._retry_at_s[name] = time.monotonic() + _RETRY_S
            await self._lifecycle.load(name, version, actor=_ACTOR)
            del self._retry_at_s[name]
        await self._registry.store.replace_champion(name, version, swap_desired=swap, actor=_ACTOR)
        await self._registry.refresh()

    async def _remove(self, name: str) -> None:
        """Unload a model whose file is gone, and show it to nobody; its versions are kept."""
        model = self._registry.catalog.models.get(name)
        if model is None or not _follows_the_folder(model):
            return
        if model.desired:
            await self._lifecycle.unload(name, actor=_ACTOR)
        await self._registry.store.set_source(name, None)
        await self._registry.refresh()
        log.info("model_removed", model=name, source=FOLDER)

    def _report(self, name: str, reason: str) -> None:
        if self._reported.get(name) != reason:
            self._reported[name] = reason
            log.warning("model_skipped", model=name or None, source=FOLDER, reason=reason)


def _follows_the_folder(model: Model) -> bool:
    """Whether a model is what the folder says, and not what somebody registered since."""
    champion = model.versions.get(model.aliases.get("champion", 0))
    return model.source == FOLDER and (champion is None or champion.source == FOLDER)


def _mend_from(path: Path, repository: Path, arguments: dict[str, Any]) -> bool:
    with in_one_file(path) as whole:
        return mend_version(whole, repository=repository, **arguments)
