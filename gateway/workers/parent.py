"""The parent, as a worker sees it: what it tells, what it may ask, and the siblings behind it."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Self

from prometheus_client.core import Metric

from gateway.background import log_fault, run_in_background
from gateway.control import Control, shared_bytes
from gateway.errors import LinkClosed, StoreUnavailable
from gateway.registry.registry import Registry
from gateway.settings import Settings
from gateway.siblings import Recalled
from gateway.triton.discovery import Discovery, parse_triton_url
from gateway.triton.endpoint import TritonEndpoint
from gateway.triton.monitor import Monitor
from gateway.triton.replicas import ReplicaSet, Served
from gateway.workers.door import Entrance
from gateway.workers.link import Handlers, Link
from gateway.workers.messages import News, Report, Welcome
from gateway.workers.told import (
    Places,
    ToldFolder,
    ToldLifecycle,
    ToldReconciler,
    ToldReplica,
    apply_act,
)

_REPORT_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Counting:
    """What a worker has counted: `flush` stores it, `shown` shows it, `recall` finds an answer."""

    flush: Callable[[], Awaitable[object]]
    shown: Callable[[], list[Metric]]
    recall: Callable[[str], Awaitable[Recalled | None]]
    every_s: float


class Parent:
    """One worker's end. It is the worker's `Siblings`, too."""

    link: Link
    _welcome: Welcome

    def __init__(self, number: int, door: socket.socket) -> None:
        self.number = number
        self.entrance = Entrance(door)
        self.connections: Callable[[], int] = lambda: 0
        """Counts the clients' connections that are open."""
        self._replicas: ReplicaSet | None = None
        self._registry: Registry | None = None
        self._reconciler: ToldReconciler | None = None
        self._lifecycle: ToldLifecycle | None = None
        self._embedded: ToldReplica | None = None
        self._endpoint: TritonEndpoint | None = None
        self._counting: Counting | None = None
        self._news: News
        self._catching_up: asyncio.Task[None] | None = None
        self._hearing: asyncio.Task[None] | None = None

    @classmethod
    async def join(cls, number: int, wire: socket.socket, door: socket.socket) -> Self:
        """Connect, and wait until the parent has told how things are."""
        parent = cls(number, door)
        handlers: Handlers = {
            "news": parent._learn,
            "came_up": parent._came_up,
            "went_down": parent._went_down,
            "report": parent._report,
            "count": parent._count,
            "flush": parent._flush,
            "recall": parent._recall,
        }
        parent.link = await Link.open(wire, handlers)
        parent._welcome = await parent.link.ask("hello")
        parent._endpoint, parent._news = parent._welcome.embedded, parent._welcome.news
        return parent

    @property
    def settings(self) -> Settings:
        """What this worker may use: its share."""
        return self._welcome.settings

    @property
    def places(self) -> Places:
        """Places for validations, which all workers share."""
        return Places(self.link)

    @contextlib.asynccontextmanager
    async def open_control(self, settings: Settings, registry: Registry) -> AsyncIterator[Control]:
        """Watch replicas, and leave what changes them to the parent."""
        async with contextlib.AsyncExitStack() as stack:
            replicas = ReplicaSet()
            stack.push_async_callback(replicas.close)
            reconciler = ToldReconciler(self.link, load_timeout_s=settings.load_timeout_s)
            monitor = Monitor(
                replicas,
                reconciler,
                # Probes, strikes and repairs are the parent's.
                probes=dict,
                quarantine=_leave_to_the_parent,
                poll_s=settings.replica_poll_s,
                probe_interval_s=settings.probe_interval_s,
                shared_bytes=lambda replica: shared_bytes(settings, replica),
            )
            stack.push_async_callback(monitor.stop)
            lifecycle = ToldLifecycle(
                registry,
                replicas,
                reconciler,
                link=self.link,
                timeout_s=settings.load_timeout_s,
                repository=settings.model_repository.resolve(),
            )
            self._replicas, self._registry = replicas, registry
            self._reconciler, self._lifecycle = reconciler, lifecycle
            if settings.triton_urls:
                urls = [parse_triton_url(text) for text in settings.triton_urls]
                discovery = Discovery(urls, monitor, settings.triton_admin_key)
                await discovery.refresh()
                run_in_background(stack, discovery.follow)
            else:
                self._embedded = ToldReplica(monitor, replicas)
                stack.push_async_callback(self._embedded.close)
                if self._endpoint is not None:
                    await self._embedded.came_up(self._endpoint)
            registry.on_change(lambda _catalog: self._say_known())
            self._learn(self._news)
            run_in_background(stack, self._keep_reporting)
            folder = ToldFolder(self.link, registry) if settings.models_dir is not None else None
            yield Control(replicas, reconciler, lifecycle, folder)
            # What the parent tells from now on is for the next worker.
            self._embedded = self._reconciler = self._lifecycle = None

    def attach(self, counting: Counting) -> None:
        """Show the parent what this worker counts, from now on."""
        self._counting = counting

    async def caught_up(self) -> None:
        """Return when all workers know what this one has changed."""
        with contextlib.suppress(LinkClosed):
            await self.link.ask("caught_up")

    async def flush(self) -> None:
        """Have all other workers store what they have counted."""
        await self.link.ask("flush")

    async def scrape(self) -> Sequence[Metric] | None:
        """Add up all workers' metrics and the parent's."""
        families: Sequence[Metric] = await self.link.ask("scrape")
        return families

    async def recall(self, request_id: str) -> Recalled | None:
        """Find the answer to a request that another worker gave."""
        recalled: Recalled | None = await self.link.ask("recall", request_id)
        return recalled

    def _learn(self, news: News) -> None:
        self._news = news
        if self._replicas is None or self._reconciler is None or self._lifecycle is None:
            return
        self._reconciler.learn(news)
        self._lifecycle.loading.clear()
        self._lifecycle.loading.update(news.loading)
        apply_act(self._replicas, news)
        assert self._registry is not None
        if news.generation <= self._registry.catalog.generation:
            self._say_known()
        elif self._catching_up is None or self._catching_up.done():
            self._catching_up = asyncio.create_task(self._catch_up(self._registry))
            self._catching_up.add_done_callback(log_fault)

    async def _catch_up(self, registry: Registry) -> None:
        with contextlib.suppress(StoreUnavailable):  # the parent says so, and tells again
            while registry.catalog.generation < self._news.generation:
                await registry.refresh()
        self._say_known()

    def _say_known(self) -> None:
        assert self._registry is not None
        self.link.tell("known", self._registry.catalog.generation, self._news.revision)

    def _came_up(self, endpoint: TritonEndpoint) -> None:
        self._endpoint = endpoint
        if self._embedded is not None:
            self._hear(self._embedded.came_up(endpoint))

    def _went_down(self) -> None:
        self._endpoint = None
        if self._embedded is not None:
            self._hear(self._embedded.went_down())

    def _hear(self, news: Awaitable[None]) -> None:
        """Take news of the embedded Triton one after the other."""
        before = self._hearing

        async def hear() -> None:
            if before is not None:
                await asyncio.wait([before])
            await news

        self._hearing = asyncio.create_task(hear())
        self._hearing.add_done_callback(log_fault)

    async def _keep_reporting(self) -> None:
        loop = asyncio.get_running_loop()
        counted_at_s = loop.time()
        while True:
            await asyncio.sleep(_REPORT_EVERY_S)
            self.link.tell("note", await self._report())
            counting = self._counting
            if counting is not None and loop.time() - counted_at_s >= counting.every_s:
                counted_at_s = loop.time()
                self.link.tell("counted", counting.shown())

    async def _report(self) -> Report:
        replicas = self._replicas or ReplicaSet()
        return Report(
            connections=self.connections(),
            taken=self.entrance.taken,
            in_flight={each.name: dict(+each.in_flight) for each in replicas},
            answered_at_s={each.name: dict(each.answered_at_s) for each in replicas},
        )

    async def _count(self) -> list[Metric]:
        return self._counting.shown() if self._counting is not None else []

    async def _flush(self) -> None:
        if self._counting is not None:
            await self._counting.flush()

    async def _recall(self, request_id: str) -> Recalled | None:
        return await self._counting.recall(request_id) if self._counting is not None else None


async def _leave_to_the_parent(_served: Served, _reason: str) -> None:
    """Strikes are counted by the parent alone."""
