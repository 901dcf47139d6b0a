"""Open registration: what it needs of the settings and of the other services."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from gateway.registry.registration import Registration
from gateway.registry.registry import Registry
from gateway.registry.staging import open_staging
from gateway.registry.validation.validator import Validator
from gateway.settings import Settings
from gateway.store.database import Database
from gateway.store.registrations import RegistrationStore


@contextlib.asynccontextmanager
async def open_registration(
    settings: Settings,
    repository: Path,
    database: Database,
    registry: Registry,
    *,
    places: AbstractAsyncContextManager[None] | None = None,
) -> AsyncIterator[Registration]:
    """
    Open registration. Before it is handed out, what a crash left half done is removed.

    Args:
        settings, repository, database, registry: What it works with.
        places: For validations, if they are shared with other processes.

    Raises:
        StoreUnavailable: The database cannot be read.
        StorageFull: The repository has no space for a staging folder.
    """
    staging = open_staging(repository)
    try:
        registration = Registration(
            registry,
            RegistrationStore(database),
            staging,
            repository,
            Validator(
                memory_bytes=settings.validation_memory_bytes,
                timeout_s=settings.validation_timeout_s,
                runtime=settings.validation_runtime,
            ),
            max_uploads=settings.max_uploads,
            validating=places or asyncio.Semaphore(settings.max_validations),
        )
        await registration.recover()
        yield registration
    finally:
        staging.close()
