"""Takes over what the parent's control plane has loaded, as a worker's own record."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from gateway.background.tasks import log_fault, run_in_background
from gateway.errors import StoreUnavailable
from gateway.registry.registry import Registry
from gateway.registry.versions import Catalog
from gateway.triton.loads import LoadStates
from gateway.triton.monitor import Monitor
from gateway.triton.replicas import Replica, ReplicaSet
from gateway.workers.wire.channel import Channel
from gateway.workers.wire.messages import Follow, Knows, State


class StateFollower:
    """Keeps a worker's replicas, loads and catalog in step with the parent's."""

    def __init__(
        self,
        parent: Channel,
        registry: Registry,
        monitor: Monitor,
        replicas: ReplicaSet,
        loads: LoadStates,
    ) -> None:
        self._parent = parent
        self._registry = registry
        self._monitor = monitor
        self._replicas = replicas
        self._loads = loads
        self._state = State(revision=-1, generation=-1)
        self._embedded: Replica | None = None
        self._moved = asyncio.Event()
        self._catching_up: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follow the parent for the length of a block."""
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._forget)
            run_in_background(stack, self._follow_embedded)
            stack.enter_context(self._parent.on(State, self._take))
            self._registry.on_change(self._say_known)
            self._take(await self._parent.ask(Follow()))
            yield

    def _take(self, state: State) -> None:
        if state.revision < self._state.revision:
            return  # the answer to `Follow`, overtaken by what came right behind it
        self._state = state
        self._loads.replace(
            failures=state.failures,
            load_times_s=state.load_times_s,
            first_loads=state.first_loads,
        )
        self._take_embedded(state)
        for replica in self._replicas:
            replica.loading = set(state.loading.get(replica.name, ()))
            if state.ended is not None and state.ended.replica == replica.name:
                replica.mark_ready(state.ended.model, state.ended.versions)
        if state.generation <= self._registry.catalog.generation:
            self._say_known(self._registry.catalog)
        elif self._catching_up is None or self._catching_up.done():
            self._catching_up = asyncio.create_task(self._catch_up())
            self._catching_up.add_done_callback(log_fault)

    async def _catch_up(self) -> None:
        with contextlib.suppress(StoreUnavailable):  # the parent says so, and sends again
            while self._registry.catalog.generation < self._state.generation:
                await self._registry.refresh()
        self._say_known(self._registry.catalog)

    def _say_known(self, catalog: Catalog) -> None:
        self._parent.tell(Knows(catalog.generation, self._state.revision))

    def _take_embedded(self, state: State) -> None:
        if self._embedded is None:
            if state.embedded is not None:
                self._embedded = self._monitor.watch("embedded", state.embedded)
        elif state.embedded is None:
            if self._embedded.live:
                self._embedded.mark_down()
                self._moved.set()
        elif state.embedded != self._embedded.client.endpoint:
            self._moved.set()

    async def _follow_embedded(self) -> None:
        """Move to where the embedded Triton answers, one move at a time."""
        while True:
            await self._moved.wait()
            self._moved.clear()
            replica, endpoint = self._embedded, self._state.embedded
            if replica is not None and endpoint is None:
                await self._replicas.announce()
            elif replica is not None and endpoint not in {None, replica.client.endpoint}:
                assert endpoint is not None
                await self._monitor.came_up(replica, endpoint)

    async def _forget(self) -> None:
        if self._embedded is not None:
            await self._monitor.forget(self._embedded)
