"""
Observes the parent's control plane, and sends all workers what is loaded whenever that changes.

Nothing is unloaded before every worker knows that it is not to be asked any more.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from gateway.background.tasks import log_fault
from gateway.registry.versions import Catalog
from gateway.triton.embedded.replica import EmbeddedReplica, TritonListener
from gateway.triton.endpoint import TritonEndpoint
from gateway.triton.loads import LoadStates
from gateway.triton.replicas import Replica, ReplicaSet
from gateway.workers.parent.pool import WorkerPool
from gateway.workers.parent.propagation import Propagation
from gateway.workers.parent.reports import Reports
from gateway.workers.wire.messages import LoadEnded, State


class StateFeed:
    """The observer of the parent's control plane."""

    def __init__(
        self,
        pool: WorkerPool,
        propagation: Propagation,
        reports: Reports,
        *,
        replicas: ReplicaSet,
        loads: LoadStates,
    ) -> None:
        self._pool = pool
        self._propagation = propagation
        self._reports = reports
        self._replicas = replicas
        self._loads = loads
        self._embedded: TritonEndpoint | None = None

    def state(self, ended: LoadEnded | None = None) -> State:
        """Return the state as it is now."""
        loads = self._loads
        return State(
            revision=self._propagation.revision,
            generation=self._propagation.generation,
            embedded=self._embedded,
            first_loads=frozenset(loads.first_loads),
            loading={each.name: frozenset(each.loading) for each in self._replicas if each.loading},
            failures=dict(loads.failures),
            load_times_s=dict(loads.load_times_s),
            ended=ended,
        )

    def publish(self, ended: LoadEnded | None = None) -> None:
        """Send the state to every worker that follows it."""
        self._propagation.revision += 1
        state = self.state(ended)
        for worker in self._pool:
            if worker.follows:
                worker.channel.tell(state)

    def set_embedded(self, endpoint: TritonEndpoint | None) -> None:
        """Send where the embedded Triton answers; None while it does not."""
        self._embedded = endpoint
        self.publish()

    async def catalog_refreshed(self, catalog: Catalog) -> None:
        """Return when every worker knows the catalog."""
        if catalog.generation != self._propagation.generation:
            self._propagation.generation = catalog.generation
            self.publish()
        await self._propagation.everywhere()

    async def before_load(self) -> None:
        """Return when every worker knows what is desired."""
        await self._propagation.everywhere()

    def load_changed(self, replica: Replica, name: str) -> None:
        """Send what a load or unload has left ready."""
        self.publish(LoadEnded(replica.name, name, replica.ready_versions(name)))

    def load_settled(self) -> None:
        """Send that a first load has come to its end."""
        self.publish()

    def listener(self, replica: EmbeddedReplica) -> TritonListener:
        """Return who hears the news of the embedded Triton: the workers, and then `replica`."""
        return _AnnouncedTriton(replica, self, self._reports.collect)


class _AnnouncedTriton:
    """Tells the workers the news of the embedded Triton before the parent's monitor hears them."""

    def __init__(
        self,
        replica: EmbeddedReplica,
        feed: StateFeed,
        collect_reports: Callable[[], Awaitable[None]],
    ) -> None:
        self._replica = replica
        self._feed = feed
        self._collect_reports = collect_reports
        self._last: asyncio.Task[None] | None = None

    def attach(self, endpoint: TritonEndpoint) -> None:
        """Hear that the server has started."""
        self._feed.set_embedded(endpoint)
        self._replica.attach(endpoint)

    async def close(self) -> None:
        """Hear that the gateway is done with it."""
        await self._replica.close()

    async def came_up(self, endpoint: TritonEndpoint) -> None:
        """Hear that a new, empty server answers."""
        self._feed.set_embedded(endpoint)
        if self._last is not None:
            await asyncio.wait([self._last])
        await self._replica.came_up(endpoint)

    def went_down(self, reason: str) -> None:
        """Hear that the server ended."""
        self._feed.set_embedded(None)
        self._after_reports(partial(self._replica.went_down, reason))

    def stub_lost(self, model: str, version: int, detail: str) -> None:
        """Hear that the process of an instance ended."""
        self._after_reports(partial(self._replica.stub_lost, model, version, detail))

    def _after_reports(self, hear: Callable[[], None]) -> None:
        """Strikes depend on what the workers had in flight, and on who answered them last."""
        before = self._last

        async def wait_and_hear() -> None:
            if before is not None:
                await asyncio.wait([before])
            await self._collect_reports()
            hear()

        self._last = asyncio.create_task(wait_and_hear())
        self._last.add_done_callback(log_fault)
