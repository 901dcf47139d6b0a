"""What changes replicas, in a worker: each of these asks the parent to do it."""

import asyncio

from gateway.registry.registry import Registry
from gateway.registry.versions import ModelVersion
from gateway.store.audit import ORIGIN
from gateway.triton.replicas import Replica, Served
from gateway.workers.wire.channel import Channel
from gateway.workers.wire.messages import (
    GiveValidationSlot,
    Load,
    Repair,
    SyncFolder,
    TakeValidationSlot,
    Unload,
)


class RemoteRepairs:
    """The `Repairs` of a worker's monitor."""

    def __init__(self, parent: Channel) -> None:
        self._parent = parent

    async def reconcile(self, replica: Replica) -> None:
        """Leave it to the parent, which watches the same replica."""

    async def repair(self, replica: Replica, served: Served, *, noticed_at_s: float) -> None:
        """Have the parent reload a version that lost one of its processes."""
        self._parent.tell(Repair(replica.name, served, noticed_at_s))

    def tried_at_s(self, replica: Replica, served: Served) -> float:  # noqa: ARG002 - no load here
        """Return 0: this process has begun no load."""
        return 0.0


class RemoteLifecycle:
    """Loads and unloads by the parent."""

    def __init__(self, parent: Channel, registry: Registry) -> None:
        self._parent = parent
        self._registry = registry

    async def load(self, name: str, version: int | None = None, *, actor: str) -> ModelVersion:
        """Have the parent load; see `LocalLifecycle.load`."""
        number = await self._parent.ask(Load(name, version, actor, ORIGIN.get()))
        return (await self._registry.refresh()).model(name).version(number)

    async def unload(self, name: str, version: int | None = None, *, actor: str) -> None:
        """Have the parent unload; see `LocalLifecycle.unload`."""
        await self._parent.ask(Unload(name, version, actor, ORIGIN.get()))
        await self._registry.refresh()


class RemoteFolder:
    """The parent's folder of models."""

    def __init__(self, parent: Channel, registry: Registry) -> None:
        self._parent = parent
        self._registry = registry

    async def sync(self, name: str | None = None) -> None:
        """Have the parent look at the folder; see `ModelsFolder.sync`."""
        await self._parent.ask(SyncFolder(name))
        await self._registry.refresh()


class RemoteValidations:
    """
    The right to validate a model, which all workers share, as an asynchronous context: it is held
    in the block. Who is cancelled while it waits gives a slot back all the same; the parent hears
    that after the call, and gives the slot to the next.
    """

    def __init__(self, parent: Channel) -> None:
        self._parent = parent

    async def __aenter__(self) -> None:
        try:
            await self._parent.ask(TakeValidationSlot())
        except asyncio.CancelledError:
            self._parent.tell(GiveValidationSlot())
            raise

    async def __aexit__(self, *_: object) -> None:
        self._parent.tell(GiveValidationSlot())
