"""
What every process of a gateway opens, whether it answers requests or not: the database, the
registry, keys, registration, the control plane, and what counts. The one opening sequence.
"""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gateway.access.opening import Access, open_access, warn_while_open
from gateway.background.tasks import run_in_background
from gateway.control_plane import Control, ControlPlane
from gateway.metrics.metrics import Metrics, open_metrics
from gateway.registry.adoption import REPOSITORY
from gateway.registry.registration import Registration
from gateway.registry.registry import Registry
from gateway.registry.staging import open_staging
from gateway.registry.validation.validator import Validator
from gateway.settings import Settings
from gateway.store.database import Database, open_database
from gateway.store.registrations import RegistrationStore
from gateway.store.versions import VersionStore
from gateway.triton.shared_memory import sweep


@dataclass(frozen=True, slots=True)
class Core:
    """The open parts."""

    database: Database
    registry: Registry
    access: Access
    registration: Registration
    control: Control
    metrics: Metrics


@contextlib.asynccontextmanager
async def open_core(settings: Settings, plane: ControlPlane) -> AsyncIterator[Core]:
    """
    Open the parts in order; close them in reverse when the block ends.

    Args:
        settings: Of this process.
        plane: Who loads models.

    Raises:
        StoreUnavailable: The database cannot be opened.
        NotSafe: Others could do everything here; the text says how to go on.
        StorageFull: The repository has no space for a staging folder.
        EmbeddedError: The embedded Triton cannot run here; the text says how to mend it.
        TritonUrlInvalid: TRITON_URLS cannot be read.
    """
    sweep()
    async with contextlib.AsyncExitStack() as stack:
        repository = settings.model_repository.resolve()
        repository.mkdir(parents=True, exist_ok=True)
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        database = await open_database(settings.resolved_database_url)
        stack.push_async_callback(database.close)
        # With a folder of models, the folder is what is served; the repository only holds copies.
        hidden = (REPOSITORY,) if settings.models_dir else ()
        registry = Registry(
            VersionStore(database), hidden_sources=hidden, refreshed=plane.catalog_refreshed
        )
        await registry.refresh()
        access = await stack.enter_async_context(open_access(settings, database, registry))
        if plane.does_shared_work:
            run_in_background(stack, partial(warn_while_open, settings, access.keyring))
        registration = await stack.enter_async_context(
            _open_registration(settings, repository, database, registry, plane)
        )
        control = await stack.enter_async_context(plane.open(settings, registry))
        metrics = await stack.enter_async_context(
            open_metrics(settings, database, registry, control.replicas, control.loads)
        )
        for work in metrics.background(shared_work=plane.does_shared_work):
            run_in_background(stack, work)
        yield Core(database, registry, access, registration, control, metrics)


@contextlib.asynccontextmanager
async def _open_registration(
    settings: Settings,
    repository: Path,
    database: Database,
    registry: Registry,
    plane: ControlPlane,
) -> AsyncIterator[Registration]:
    """Open registration. What a crash left half done is removed first."""
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
            validating=plane.validations,
        )
        await registration.recover()
        yield registration
    finally:
        staging.close()
