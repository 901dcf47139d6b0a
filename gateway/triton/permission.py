"""
Who may load and unload on a replica.

A Triton of this gateway's own is its own to change. One that several gateways share is changed by
whoever holds a lease on the model there; see `gateway/registry/shared_replicas.py`.
"""

import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Permit(Protocol):
    """Leave to change one Triton model on one replica."""

    def holds(self) -> bool:
        """Whether it holds now, and with it what is known to be desired."""


class Permission(Protocol):
    """Gives permits."""

    def ask(self, replica: str, triton_model: str, /) -> AbstractAsyncContextManager[Permit]:
        """Ask for a permit for the length of a block. One that is refused does not hold."""


class _Granted:
    def holds(self) -> bool:
        return True


class Unshared:
    """The replicas belong to this gateway alone."""

    @contextlib.asynccontextmanager
    async def ask(self, _replica: str, _triton_model: str) -> AsyncIterator[Permit]:
        """Grant it."""
        yield _Granted()
