"""
A worker's view of what is loaded: it watches replicas by itself, and leaves every change to the
parent.

It reads each replica's index as any gateway does, so that it knows which it can reach. What the
parent has loaded or unloaded it hears at once. A lost backend process that one of its requests met
is reported; the parent repairs it.
"""

import asyncio
from pathlib import Path

from gateway.registry.artifacts import Artifacts
from gateway.registry.lifecycle import Lifecycle
from gateway.registry.registry import Registry
from gateway.registry.versions import ModelVersion
from gateway.triton.endpoint import TritonEndpoint
from gateway.triton.monitor import Monitor
from gateway.triton.reconciler import Reconciler
from gateway.triton.replicas import Replica, ReplicaSet
from gateway.workers.link import Link
from gateway.workers.messages import News


class ToldReconciler(Reconciler):
    """Knows what the parent's reconciler knows, and acts through it."""

    def __init__(self, link: Link, *, load_timeout_s: float) -> None:
        # Nothing is desired of this one, so that it never acts.
        super().__init__(dict, load_timeout_s=load_timeout_s)
        self._link = link

    async def repair(self, replica: Replica, name: str, *, noticed_at_s: float) -> None:
        """Have the parent reload a model: one of its processes was seen lost."""
        self._link.tell("repair", replica.name, name, noticed_at_s)

    def learn(self, news: News) -> None:
        """Take over what the parent's reconciler knows."""
        self._failures = dict(news.failures)
        self.load_times_s = dict(news.load_times_s)


class ToldLifecycle(Lifecycle):
    """Loads and unloads by the parent."""

    def __init__(
        self,
        registry: Registry,
        replicas: ReplicaSet,
        reconciler: Reconciler,
        *,
        link: Link,
        timeout_s: float,
        repository: Path,
    ) -> None:
        super().__init__(
            registry,
            replicas,
            reconciler,
            timeout_s=timeout_s,
            artifacts=Artifacts(repository, registry),
        )
        self._link = link

    async def load(self, name: str, version: int | None = None, *, actor: str) -> ModelVersion:
        """Have the parent load; see `Lifecycle.load`."""
        number: int = await self._link.ask("load", name, version, actor)
        return (await self._registry.refresh()).model(name).version(number)

    async def unload(self, name: str, version: int | None = None, *, actor: str) -> None:
        """Have the parent unload; see `Lifecycle.unload`."""
        await self._link.ask("unload", name, version, actor)
        await self._registry.refresh()


class ToldFolder:
    """The parent's folder of models."""

    def __init__(self, link: Link, registry: Registry) -> None:
        self._link = link
        self._registry = registry

    async def sync(self) -> None:
        """Have the parent publish what is new in the folder."""
        await self._link.ask("sync_folder")
        await self._registry.refresh()


class ToldReplica:
    """The parent's embedded Triton, as one replica of this worker's monitor."""

    def __init__(self, monitor: Monitor, replicas: ReplicaSet) -> None:
        self._monitor = monitor
        self._replicas = replicas
        self._replica: Replica | None = None

    async def came_up(self, endpoint: TritonEndpoint) -> None:
        """Hear that a server answers, the first or another one."""
        if self._replica is None:
            self._replica = Replica("embedded", endpoint)
            self._monitor.watch(self._replica)
        else:
            await self._monitor.came_up(self._replica, endpoint)

    async def went_down(self) -> None:
        """Hear that the server ended. The strikes are the parent's to count."""
        if self._replica is not None:
            self._replica.mark_down()
            await self._replicas.announce()

    async def close(self) -> None:
        """Take the replica out of the monitor and close its connections."""
        if self._replica is not None:
            await self._monitor.forget(self._replica)


class Places:
    """
    Places that all workers share, as an asynchronous context: one is held in the block. Who is
    cancelled while it waits gives a place back all the same, which the parent then gives away once.
    """

    def __init__(self, link: Link) -> None:
        self._link = link

    async def __aenter__(self) -> None:
        try:
            await self._link.ask("take_place")
        except asyncio.CancelledError:
            self._link.tell("give_place")
            raise

    async def __aexit__(self, *_: object) -> None:
        self._link.tell("give_place")


def apply_act(replicas: ReplicaSet, news: News) -> None:
    """Take over what a load or unload of the parent's left ready."""
    for replica in replicas:
        replica.loading = set(news.in_load.get(replica.name, ()))
        acted = news.acted
        if acted is not None and acted.replica == replica.name:
            replica.mark_ready(acted.model, acted.versions)
