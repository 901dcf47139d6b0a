"""
Versions that were begun and not finished, by this gateway or by one that is gone: their files are
removed, and the claims on their numbers released.
"""

import asyncio
from pathlib import Path

import structlog

from gateway.converter.errors import ConverterError
from gateway.converter.unpublish import remove_version
from gateway.errors import StoreUnavailable
from gateway.registry.refusals import as_refusals
from gateway.registry.registry import Registry
from gateway.registry.staging import Staging
from gateway.store.registrations import RegistrationStore
from gateway.store.tables import UnsettledRow

log = structlog.get_logger(__name__)


class UnfinishedVersions:
    """Settles them. Whoever does so for one model holds that model's lock."""

    def __init__(
        self, registry: Registry, store: RegistrationStore, staging: Staging, repository: Path
    ) -> None:
        self._registry = registry
        self._store = store
        self._staging = staging
        self._repository = repository

    async def recover(self) -> None:
        """
        Settle what gateways that are gone have left. What is wrong with one model's directory is
        logged and left for the next time: the others have nothing to do with it.

        Raises:
            StoreUnavailable: The database cannot be read.
        """
        for row in await self._store.unsettled():
            try:
                await self._settle(row)
            except (ConverterError, OSError) as error:
                _log_left(row.model, row.version, error)

    async def recover_model(self, name: str) -> None:
        """Settle what gateways that are gone have left of one model, whose lock is held."""
        for row in await self._store.unsettled(name):
            with as_refusals():
                await self._settle(row)

    async def _settle(self, row: UnsettledRow) -> None:
        # Our own: whoever asks holds the name's lock, so that nobody here is at it any more.
        if row.owner != self._staging.owner and self._staging.alive(row.owner):
            return
        if await self._store.is_recorded(row.model, row.version):
            await self._store.release(row.model, row.version)
            return
        await self._remove_files(row.model, row.version)
        log.warning("unfinished_version_removed", model=row.model, version=row.version)

    async def abandon(self, name: str, version: int) -> None:
        """Undo a failed publication; where that cannot be done now, the claim stays for later."""
        try:
            if not await self._store.is_recorded(name, version):
                await self.remove_or_leave(name, version)
        except StoreUnavailable as error:
            _log_left(name, version, error)

    async def remove_or_leave(self, name: str, version: int) -> None:
        """Remove a version's files; where that fails, its claim has the next start do it."""
        try:
            await self._remove_files(name, version)
        except (StoreUnavailable, ConverterError, OSError) as error:
            _log_left(name, version, error)

    async def _remove_files(self, name: str, version: int) -> None:
        model = self._registry.catalog.models.get(name)
        configs = {} if model is None else {v: m.config for v, m in model.versions.items()}
        await asyncio.to_thread(remove_version, self._repository, name, version, configs=configs)
        await self._store.release(name, version)


def _log_left(name: str, version: int, error: Exception) -> None:
    log.warning("unfinished_version_left", model=name, version=version, reason=str(error))
