"""Ask a version apart from callers: loaded for as long as that takes, and patiently."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from gateway.errors import (
    DeadlineExceeded,
    GatewayError,
    LoadFailed,
    ModelNotLoaded,
    Overloaded,
    Unavailable,
)
from gateway.registry.lifecycle import Lifecycle
from gateway.registry.registry import Registry

PASSING = (Unavailable, Overloaded, DeadlineExceeded, ModelNotLoaded, LoadFailed)
"""What is not a version's fault and passes: one asks again later."""
_RETRIES, _RETRY_S = 60, 0.5

Answer = TypeVar("Answer")


@contextlib.asynccontextmanager
async def loaded_meanwhile(
    registry: Registry, lifecycle: Lifecycle, name: str, version: int, *, actor: str
) -> AsyncIterator[None]:
    """
    Have a version loaded for the length of the block; one that was not loaded before, and that no
    alias names afterwards, is unloaded again.

    Raises:
        LoadFailed, SignatureConflict, ArtifactCorrupt: It cannot be loaded.
    """
    was_loaded = version in registry.catalog.model(name).desired
    if not was_loaded:
        await lifecycle.load(name, version, actor=actor)
    try:
        yield
    finally:
        model = registry.catalog.models.get(name)
        in_use = model is not None and version in model.aliases.values()
        if not was_loaded and not in_use:
            await lifecycle.unload(name, version, actor=actor)


async def patiently(ask: Callable[[], Awaitable[Answer]]) -> Answer | None:
    """
    Ask again while the server is busy, or away; None if the version fails on what it is asked.

    Raises:
        GatewayError: It stayed so: nothing is known of the version.
    """
    for attempt in range(_RETRIES):
        try:
            return await ask()
        except PASSING:
            if attempt + 1 == _RETRIES:
                raise
            # Callers come first.
            await asyncio.sleep(_RETRY_S)
        except GatewayError:
            return None
    return None
