"""
The monitor: knows at any time which replica can be reached and what it has ready, and has what was
lost brought back.

Three sources feed it. The index of each replica is read every half second. Every failed request is
told at once (`trouble`). The supervisor of an embedded Triton tells when its process or one of
its backend processes dies. And because Triton calls a model ready whose process is dead, a version
that has answered nothing for some seconds is asked a real question.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

import structlog

from gateway.background.stalls import own_stall
from gateway.background.tasks import TaskSet
from gateway.triton.client import TritonClient
from gateway.triton.endpoint import TritonEndpoint
from gateway.triton.errors import (
    StubLost,
    TritonError,
    TritonNotReady,
    TritonRejected,
    TritonUnreachable,
)
from gateway.triton.probe import Probe
from gateway.triton.quarantine import Strikes
from gateway.triton.replicas import Replica, ReplicaSet, Served
from gateway.triton.statistics import IndexEntry
from gateway.triton.tensor import InputTensor

log = structlog.get_logger(__name__)

_INDEX_TIMEOUT_S = 1.0
_PROBE_TIMEOUT_S = 10.0


class Repairs(Protocol):
    """Sets right what a monitor sees: a reconciler, or the way to the process that has one."""

    async def reconcile(self, replica: Replica) -> None:
        """Bring a replica whose index was just read to what it should have loaded."""

    async def repair(self, replica: Replica, served: Served, *, noticed_at_s: float) -> None:
        """Reload a version that lost one of its processes at `noticed_at_s` (monotonic)."""

    def tried_at_s(self, replica: Replica, served: Served) -> float:
        """Return when a version's last load on a replica began (monotonic); 0 before the first."""


class Monitor:
    """Watches every replica of a set, each by a task of its own."""

    def __init__(
        self,
        replicas: ReplicaSet,
        repairs: Repairs,
        *,
        poll_s: float,
        shared_bytes: Callable[[Replica], int],
        probes: Callable[[], Mapping[Served, Probe]] = dict,
        probe_interval_s: float = 0.0,
        quarantine: Callable[[Served, str], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        """
        Args:
            replicas: The set that is kept; it is empty at first.
            repairs: Sets right what is seen.
            poll_s: Pause between two looks at a replica's index, in seconds.
            shared_bytes: How much memory to share with a replica.
            probes: What to ask each version that should be ready; by default nothing.
            probe_interval_s: A version that was silent for so long is asked.
            quarantine: Takes a version out that kills its processes; by default nobody does.
        """
        self._replicas = replicas
        self._repairs = repairs
        self._probes = probes
        self._quarantine = quarantine
        self._poll_s = poll_s
        self._probe_interval_s = probe_interval_s
        self._shared_bytes = shared_bytes
        self._strikes = Strikes()
        self._struck_at_s: dict[Served, float] = {}
        self._watching: dict[Replica, asyncio.Task[None]] = {}
        self._tasks = TaskSet()
        self._reconciling: set[Replica] = set()
        self._probing: set[Replica] = set()

    def watch(self, name: str, endpoint: TritonEndpoint) -> Replica:
        """Take a replica into the set and watch it; return it."""
        replica = Replica(name, endpoint, self)
        self._replicas.replicas.append(replica)
        self._watching[replica] = asyncio.create_task(self._follow(replica))
        return replica

    async def forget(self, replica: Replica) -> None:
        """Leave a replica out for good and close its connections."""
        self._watching.pop(replica).cancel()
        self._replicas.replicas.remove(replica)
        await replica.client.close()

    async def stop(self) -> None:
        """End every task. Replicas stay as they are."""
        watching = list(self._watching.values())
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        await self._tasks.close()

    async def came_up(self, replica: Replica, endpoint: TritonEndpoint) -> None:
        """Hear that a new process serves this replica: nothing is loaded in it."""
        await replica.move(endpoint)
        await self.look(replica)

    def went_down(self, replica: Replica, reason: str) -> None:
        """Hear that the replica's process died: leave it out and count strikes."""
        log.warning("replica_down", replica=replica.name, reason=reason)
        suspects = set(replica.loading) | {s for s, count in replica.in_flight.items() if count}
        replica.mark_down()
        self._strike(replica, suspects, f"Triton died while it was at work: {reason}")

    def stub_lost(self, replica: Replica, triton_model: str, version: int, reason: str) -> None:
        """Hear that a backend process is gone: have its model loaded anew."""
        served = self._replicas.names.served(triton_model, version)
        log.warning(
            "backend_process_lost",
            replica=replica.name,
            model=served[0],
            version=served[1],
            reason=reason,
        )
        self._strike(replica, {served}, f"its backend process died: {reason}")
        self._repair(replica, served)

    def _repair(self, replica: Replica, served: Served) -> None:
        noticed_at_s = time.monotonic()
        self._tasks.start(self._repairs.repair(replica, served, noticed_at_s=noticed_at_s))

    def _strike(self, replica: Replica, suspects: set[Served], reason: str) -> None:
        # Several instances that die between two loads are one death.
        suspects = {
            served
            for served in suspects
            if self._struck_at_s.get(served, -1.0) <= self._repairs.tried_at_s(replica, served)
        }
        for served in suspects:
            # An answer since the last strike wipes the earlier ones out.
            if replica.answered_at_s.get(served, 0.0) > self._struck_at_s.get(served, 0.0):
                self._strikes.answered(served)
            self._struck_at_s[served] = time.monotonic()
        for served in self._strikes.died(suspects):
            log.error("quarantined", model=served[0], version=served[1], reason=reason)
            if self._quarantine is not None:
                self._tasks.start(self._quarantine(served, reason))

    async def _follow(self, replica: Replica) -> None:
        while True:
            try:
                await self.look(replica)
            except Exception:
                # One look is lost, and the next must not be: nothing else brings a replica back.
                log.exception("look_failed", replica=replica.name)
            await asyncio.sleep(self._poll_s)

    async def look(self, replica: Replica) -> None:
        """Read a replica's index once, and set right what differs without waiting for it."""
        was_live, was_ready = replica.live, replica.ready
        read_at_s, client = time.monotonic(), replica.client
        try:
            with own_stall() as stall:
                entries = await client.index(timeout_s=_INDEX_TIMEOUT_S)
                entries += await self._unlisted(replica, client, entries)
        except TritonUnreachable as error:
            if (
                replica.client is not client
                or replica.answered_since(read_at_s)
                or stall.explains(_INDEX_TIMEOUT_S)
            ):
                # Another process serves by now; or it is busy, not gone: a request was answered
                # while the index was not; or it was us who did not hear it.
                return
            if was_live:
                log.warning("replica_unreachable", replica=replica.name, reason=str(error))
            replica.mark_down()
        except TritonError as error:
            log.warning("index_unreadable", replica=replica.name, reason=str(error))
        else:
            if (size_bytes := self._shared_bytes(replica)) and (
                client.region is None or not was_live
            ):
                await client.share(size_bytes, timeout_s=_INDEX_TIMEOUT_S)
            if replica.client is not client:
                return  # what this one had says nothing about the process that followed it
            replica.observe(self._replicas.names.translate(entries), read_at_s=read_at_s)
            self._tasks.start(self._once(replica, self._reconciling, self._reconcile))
            # Beside it: a version that hangs is waited for, and loads must not be.
            self._tasks.start(self._once(replica, self._probing, self._probe_silent))
        if replica.live != was_live:
            log.info("replica_changed", replica=replica.name, live=replica.live)
        if (replica.live, replica.ready) != (was_live, was_ready):
            await self._replicas.announce()

    async def _reconcile(self, replica: Replica) -> None:
        """Have set right what differs, and tell who waits for it: what failed, too."""
        await self._repairs.reconcile(replica)
        await self._replicas.announce()

    async def _unlisted(
        self, replica: Replica, client: TritonClient, entries: Sequence[IndexEntry]
    ) -> list[IndexEntry]:
        """
        Find what serves although the index does not name it: Triton leaves out a model whose files
        it cannot see, as while a mount is away, and goes on answering by it.
        """
        listed = {(entry.name, entry.version) for entry in entries}
        served = {
            (self._replicas.names.triton_model(each), each[1]) for each in replica.ready
        } - listed
        return [
            IndexEntry(name, version, "READY", "")
            for name, version in sorted(served)
            if await client.is_ready(name, version, timeout_s=_INDEX_TIMEOUT_S)
        ]

    async def _once(
        self, replica: Replica, under_way: set[Replica], work: Callable[[Replica], Awaitable[None]]
    ) -> None:
        """Do it, unless it is still under way since an earlier look."""
        if replica in under_way:
            return
        under_way.add(replica)
        try:
            await work(replica)
        finally:
            under_way.discard(replica)

    async def _probe_silent(self, replica: Replica) -> None:
        """Ask every version that has answered nothing lately a real question."""
        now_s = time.monotonic()
        for served, probe in self._probes().items():
            # A load ends with a warm-up: until an interval after it there is nothing to ask.
            heard_at_s = max(
                replica.answered_at_s.get(served, 0.0),
                self._repairs.tried_at_s(replica, served),
            )
            if not replica.serves(served) or now_s - heard_at_s < self._probe_interval_s:
                continue
            try:
                async with asyncio.timeout(_PROBE_TIMEOUT_S):
                    await replica.client.infer(
                        self._replicas.names.triton_model(served),
                        served[1],
                        input_name=probe.input_name,
                        input_dtype=probe.input_dtype,
                        tensor=InputTensor(probe.tensor),
                        output_name=probe.output_name,
                        request_id="probe",
                    )
            except TimeoutError:
                # Slow or stuck: its callers hear 504 by their own deadlines. A lost process
                # answers with an error instead; the other versions have no part in it.
                log.warning(
                    "probe_unanswered", replica=replica.name, model=served[0], version=served[1]
                )
            except (StubLost, TritonNotReady, TritonUnreachable) as error:
                self.trouble(replica, served, error)
            except TritonError:
                # It answered: that the model dislikes this input says nothing about its process.
                replica.answered_at_s[served] = time.monotonic()
            else:
                replica.mark_answered(served)

    def trouble(self, replica: Replica, served: Served, error: TritonError) -> None:
        """Hear of a failed request. Called on the path of a request: it only takes notes."""
        if isinstance(error, TritonUnreachable):
            replica.mark_down()
        elif isinstance(error, StubLost):
            replica.mark_unready(served)
            self._repair(replica, served)
        elif isinstance(error, TritonNotReady):
            replica.mark_unready(served)
        elif not isinstance(error, TritonRejected):
            # A caller's mistakes must not close the version to the others.
            replica.mark_failed(served)
