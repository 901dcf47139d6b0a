"""
A worker's control plane: it watches replicas by itself, and leaves every change to the parent.

It reads each replica's index as any gateway does, so that it knows which it can reach. The parent
sends what it has loaded or unloaded at once. A lost backend process that a request met is reported,
and the parent repairs it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial

from gateway.background.tasks import run_in_background
from gateway.control_plane import Control, bytes_to_share
from gateway.peers import Peers
from gateway.registry.desired import follow_names
from gateway.registry.registry import Registry
from gateway.registry.versions import Catalog
from gateway.settings import Settings
from gateway.triton.discovery import Discovery, parse_triton_url
from gateway.triton.loads import LoadStates
from gateway.triton.monitor import Monitor
from gateway.triton.replicas import ReplicaSet
from gateway.workers.child.connections import HandedConnections
from gateway.workers.child.peers import RemotePeers
from gateway.workers.child.remote import (
    RemoteFolder,
    RemoteLifecycle,
    RemoteRepairs,
    RemoteValidations,
)
from gateway.workers.child.state_follower import StateFollower
from gateway.workers.wire.channel import Channel
from gateway.workers.wire.messages import ReadReport, WorkerReport

_REPORT_EVERY_S = 0.5


class RemoteControlPlane:
    """Loads models through the parent."""

    def __init__(self, parent: Channel, connections: HandedConnections) -> None:
        self.peers: Peers = RemotePeers(parent)
        self.validations = RemoteValidations(parent)
        self.does_shared_work = False
        self._parent = parent
        self._connections = connections

    async def catalog_refreshed(self, catalog: Catalog) -> None:
        """Return: whoever changed the catalog waits for the others by `Peers.propagate`."""

    @contextlib.asynccontextmanager
    async def open(self, settings: Settings, registry: Registry) -> AsyncIterator[Control]:
        """
        Watch replicas, and follow what the parent loads, for the length of a block.

        Raises:
            TritonUrlInvalid: TRITON_URLS cannot be read.
        """
        async with contextlib.AsyncExitStack() as stack:
            replicas, loads = ReplicaSet(), LoadStates()
            follow_names(registry, replicas.names)
            stack.push_async_callback(replicas.close)
            repairs = RemoteRepairs(self._parent)
            monitor = Monitor(
                replicas,
                repairs,
                poll_s=settings.replica_poll_s,
                shared_bytes=partial(bytes_to_share, settings),
            )
            stack.push_async_callback(monitor.stop)
            if settings.triton_urls:
                urls = [parse_triton_url(text) for text in settings.triton_urls]
                discovery = Discovery(urls, monitor, settings.triton_admin_key)
                await discovery.refresh()
                run_in_background(stack, discovery.follow)
            follower = StateFollower(self._parent, registry, monitor, replicas, loads)
            await stack.enter_async_context(follower.following())
            await stack.enter_async_context(self._reporting(replicas))
            folder = None
            if settings.models_dir is not None:
                folder = RemoteFolder(self._parent, registry)
            lifecycle = RemoteLifecycle(self._parent, registry)
            yield Control(replicas, loads, repairs, lifecycle, folder)

    @contextlib.asynccontextmanager
    async def _reporting(self, replicas: ReplicaSet) -> AsyncIterator[None]:
        """Report how this worker is: twice a second, and when it is asked."""

        def report() -> WorkerReport:
            return WorkerReport(
                connections=self._connections.open_now,
                taken=self._connections.taken,
                in_flight={each.name: dict(+each.in_flight) for each in replicas},
                answered_at_s={each.name: dict(each.answered_at_s) for each in replicas},
            )

        async def answer(_asked: ReadReport) -> WorkerReport:
            return report()

        async def keep_reporting() -> None:
            while True:
                await asyncio.sleep(_REPORT_EVERY_S)
                self._parent.tell(report())

        with self._parent.answering(ReadReport, answer):
            async with contextlib.AsyncExitStack() as stack:
                run_in_background(stack, keep_reporting)
                yield
