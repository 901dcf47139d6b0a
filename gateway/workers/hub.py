"""
Where the workers' calls and news meet, in the parent.

The catalog: whoever has seen a newer generation says so; the hub has all others refresh theirs, and
each says what it knows now. So the hub can tell when everybody knows a change, and the answer to
the change waits for that (a second at most: a worker that hangs must not hold up the others).

The replicas: the parent's reconciler acts, and what it did goes to all workers at once. In return
they report what they have in flight and who answered them, because the parent serves nothing and
could not tell a version that answers from one that kills its process.
"""

import asyncio
import contextlib
import inspect
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import structlog
from prometheus_client.core import Metric

from gateway.background import log_fault
from gateway.control import Control
from gateway.errors import GatewayError, StoreUnavailable
from gateway.metrics.opening import Metrics
from gateway.registry.registry import Registry
from gateway.registry.versions import Catalog
from gateway.settings import Settings
from gateway.siblings import Recalled
from gateway.triton.endpoint import TritonEndpoint
from gateway.triton.replicas import Replica
from gateway.triton.shared_memory import sweep
from gateway.workers.door import Reception
from gateway.workers.link import Handlers
from gateway.workers.messages import Acted, News, Report, Welcome
from gateway.workers.pool import Member, Pool
from gateway.workers.shares import share_of
from gateway.workers.totals import Totals

log = structlog.get_logger(__name__)

_KNOWN_WITHIN_S = 1.0
_COUNTED_WITHIN_S = 1.0
_HEARD_WITHIN_S = 0.25


class Hub:
    """Answers workers' calls. Made before anything is open; they wait for `open`."""

    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        self.pool = Pool(settings.workers, handlers=self._handlers, ended=self._ended)
        self.reception = Reception(listener, self.pool.doors)
        self.embedded: TritonEndpoint | None = None
        """Where the embedded Triton answers; None if there is none, or none right now."""
        self._settings = settings
        self._opened = asyncio.Event()
        self._registry: Registry
        self._control: Control
        self._metrics: Metrics
        self._revision = 0
        self._places = asyncio.Semaphore(settings.max_validations)
        self._waiting: dict[asyncio.Future[None], tuple[int, int]] = {}
        self._errands: set[asyncio.Task[Any]] = set()
        self._dead = Totals()

    def open(self, registry: Registry, control: Control, metrics: Metrics) -> None:
        """Begin to answer."""
        self._registry, self._control, self._metrics = registry, control, metrics
        control.reconciler.on_act = self._acted
        control.reconciler.before_act = self.all_know
        registry.on_change(self._changed)
        self._opened.set()

    def announce(self, acted: Acted | None = None) -> None:
        """Tell every worker how things are now."""
        if self._opened.is_set():
            self._revision += 1
            self.tell("news", self._news(acted))

    def tell(self, name: str, *values: Any) -> None:
        """Tell something to every worker that was welcomed."""
        for member in self.pool:
            if member.welcomed:
                member.link.tell(name, *values)

    async def all_know(self) -> None:
        """Wait until every worker knows the catalog and the loads as they are now."""
        if not self._opened.is_set():
            return
        known: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        now = self._waiting[known] = (self._registry.catalog.generation, self._revision)
        self._wake()
        try:
            async with asyncio.timeout(_KNOWN_WITHIN_S):
                await known
        except TimeoutError:
            for member in self.pool:
                if member.lags(*now):
                    # Nobody waits for it again before it has said something.
                    member.silent = True
                    log.warning("worker_lags", worker=member.number)
        finally:
            del self._waiting[known]

    async def hear(self) -> None:
        """Have every worker report, for a moment at most."""
        await self._ask_all("report", within_s=_HEARD_WITHIN_S, take=self._note)

    def _handlers(self, member: Member) -> Handlers:
        def bound(handler: Callable[..., Any]) -> Callable[..., Any]:
            if inspect.iscoroutinefunction(handler):

                async def answer(*values: Any) -> Any:
                    return await handler(member, *values)

                return answer
            return lambda *values: handler(member, *values)

        names = (
            "hello",
            "load",
            "unload",
            "sync_folder",
            "caught_up",
            "scrape",
            "flush",
            "recall",
            "take_place",
            "give_place",
            "known",
            "repair",
            "note",
            "counted",
            "serving",
            "ready",
        )
        return {name: bound(getattr(self, f"_{name}")) for name in names}

    async def _hello(self, member: Member) -> Welcome:
        await self._opened.wait()
        member.welcomed = True
        settings = share_of(self._settings, member.number)
        return Welcome(settings, self.embedded, self._news(None))

    def _serving(self, member: Member) -> None:
        member.serving = True
        self.reception.open()

    def _ready(self, member: Member) -> None:
        self.pool.note_ready(member)

    def _known(self, member: Member, generation: int, revision: int) -> None:
        member.generation, member.revision, member.silent = generation, revision, False
        self._wake()
        if generation > self._registry.catalog.generation:
            self._start(self._refresh())

    async def _refresh(self) -> None:
        with contextlib.suppress(StoreUnavailable):  # whoever follows the store says so
            await self._registry.refresh()

    async def _caught_up(self, _member: Member) -> None:
        await self._refresh()
        await self.all_know()

    async def _load(self, _member: Member, name: str, version: int | None, actor: str) -> int:
        return (await self._control.lifecycle.load(name, version, actor=actor)).version

    async def _unload(self, _member: Member, name: str, version: int | None, actor: str) -> None:
        await self._control.lifecycle.unload(name, version, actor=actor)

    async def _sync_folder(self, _member: Member) -> None:
        if self._control.models_folder is not None:
            await self._control.models_folder.sync()

    def _repair(self, _member: Member, replica: str, name: str, noticed_at_s: float) -> None:
        for found in self._control.replicas:
            if found.name == replica:
                reconciler = self._control.reconciler
                self._start(reconciler.repair(found, name, noticed_at_s=noticed_at_s))

    async def _take_place(self, member: Member) -> None:
        await self._places.acquire()
        member.places += 1
        if member not in self.pool:
            # It ended while it waited: nobody else would give this place back.
            self._free_places(member)

    def _give_place(self, member: Member) -> None:
        member.places -= 1
        self._places.release()

    async def _flush(self, member: Member) -> None:
        await self._ask_all("flush", within_s=_COUNTED_WITHIN_S, but=member)

    async def _recall(self, member: Member, request_id: str) -> Recalled | None:
        found: list[Recalled] = []

        def take(_member: Member, answer: Recalled | None) -> None:
            if answer is not None:
                found.append(answer)

        await self._ask_all("recall", request_id, within_s=_COUNTED_WITHIN_S, but=member, take=take)
        return found[0] if found else None

    async def _scrape(self, _member: Member) -> Sequence[Metric]:
        await asyncio.gather(
            self._ask_all("count", within_s=_COUNTED_WITHIN_S, take=self._counted),
            self.hear(),
            self._metrics.refresh(self._control.replicas),
        )
        parts = [list(self._metrics.instruments.registry.collect())]
        parts += [member.counted for member in self.pool]
        merged = await asyncio.to_thread(self._dead.merged_with, parts)
        return merged.families()

    def _counted(self, member: Member, families: list[Metric]) -> None:
        member.counted = families

    def _note(self, member: Member, report: Report) -> None:
        member.report, member.heard_at_s = report, time.monotonic()
        member.door.note(open_now=report.connections, taken=report.taken)
        if self._opened.is_set():
            self._mirror(self._control.replicas)

    def _mirror(self, replicas: Iterable[Replica]) -> None:
        """Let the parent's replicas show what all workers together ask of them."""
        reports = [member.report for member in self.pool if member.report is not None]
        for replica in replicas:
            in_flight: Counter[tuple[str, int]] = Counter()
            for report in reports:
                in_flight.update(report.in_flight.get(replica.name, {}))
                for served, at_s in report.answered_at_s.get(replica.name, {}).items():
                    if at_s > replica.answered_at_s.get(served, 0.0):
                        replica.answered_at_s[served] = at_s
            replica.in_flight = in_flight

    def _ended(self, member: Member) -> None:
        """Settle what a worker leaves."""
        self._dead.add(member.counted)
        self.reception.place(member.door.close())
        self._free_places(member)
        self._wake()
        if self._opened.is_set():
            self._mirror(self._control.replicas)
        sweep()

    def _free_places(self, member: Member) -> None:
        while member.places > 0:
            self._give_place(member)

    def _changed(self, catalog: Catalog) -> None:
        self._dead.keep_only(
            {(model.name, number) for model in catalog.models.values() for number in model.versions}
        )
        self.announce()

    def _acted(self, replica: Replica, name: str) -> None:
        self.announce(Acted(replica.name, name, replica.ready_versions(name)))

    def _news(self, acted: Acted | None) -> News:
        reconciler, replicas = self._control.reconciler, self._control.replicas
        return News(
            generation=self._registry.catalog.generation,
            revision=self._revision,
            loading=frozenset(self._control.lifecycle.loading),
            in_load={each.name: frozenset(each.loading) for each in replicas if each.loading},
            failures=dict(reconciler.failures),
            load_times_s=dict(reconciler.load_times_s),
            acted=acted,
        )

    def _wake(self) -> None:
        for known, now in self._waiting.items():
            if not known.done() and not any(member.lags(*now) for member in self.pool):
                known.set_result(None)

    async def _ask_all(
        self,
        name: str,
        *values: Any,
        within_s: float,
        but: Member | None = None,
        take: Callable[[Member, Any], None] | None = None,
    ) -> None:
        """Ask every worker the same, and take what comes in time."""

        async def ask(member: Member) -> None:
            with contextlib.suppress(TimeoutError, GatewayError):
                async with asyncio.timeout(within_s):
                    answer = await member.link.ask(name, *values)
                if take is not None:
                    take(member, answer)

        await asyncio.gather(*(ask(m) for m in self.pool if m.generation >= 0 and m is not but))

    def _start(self, errand: Awaitable[Any]) -> None:
        task = asyncio.ensure_future(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)
        task.add_done_callback(log_fault)
