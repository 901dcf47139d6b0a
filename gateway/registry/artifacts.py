"""
Is a version's file still the one that was published? Asked before every load.

The whole file is digested the first time, and again when its size, its times or its place on the
disk have changed since; otherwise looking at those is enough.
"""

import asyncio
from pathlib import Path

from gateway.converter.digests import digest_file
from gateway.converter.layout import MODEL_FILE
from gateway.errors import ArtifactCorrupt
from gateway.registry.registry import Registry
from gateway.registry.versions import ModelVersion

_Stamp = tuple[int, int, int, int]


class Artifacts:
    """Compares files with the digests that were recorded for them."""

    def __init__(self, repository: Path, registry: Registry) -> None:
        self._repository = repository
        self._registry = registry
        self._known: dict[tuple[str, int], tuple[str, _Stamp]] = {}

    async def check(self, version: ModelVersion) -> None:
        """
        Check one version's file.

        Raises:
            ArtifactCorrupt: It is another file than the one that was published, or gone.
        """
        key = (version.model, version.version)
        path = self._repository / version.triton_model / str(version.version) / MODEL_FILE
        known = self._known.get(key)
        found = await asyncio.to_thread(_examine, path, known)
        if found is None or found[0] != version.digest:
            what = "is gone" if found is None else "was changed"
            raise ArtifactCorrupt(
                f"The file of version {version.version} of {version.model} {what} since it was "
                "published; it is not loaded. Register the same file again: that puts it back."
            )
        self._known[key] = found

    async def is_intact(self, version: ModelVersion) -> bool:
        """Whether a version's file is the one that was published."""
        try:
            await self.check(version)
        except ArtifactCorrupt:
            return False
        return True

    async def refusal(self, name: str, number: int) -> str | None:
        """Tell why a version must not be loaded; None if it may be."""
        model = self._registry.catalog.models.get(name)
        version = None if model is None else model.versions.get(number)
        if version is None:
            return None
        try:
            await self.check(version)
        except ArtifactCorrupt as error:
            return error.detail
        return None


def _examine(path: Path, known: tuple[str, _Stamp] | None) -> tuple[str, _Stamp] | None:
    """Give a file's digest and stamp; None if it cannot be read."""
    try:
        with path.open("rb") as file:
            stat = path.stat()
            stamp = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
            if known is not None and known[1] == stamp:
                return known
            return digest_file(file), stamp
    except OSError:
        return None
