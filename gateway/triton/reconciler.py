"""
The reconciler: makes every replica load what should be loaded, and nothing else of ours.

It compares the desired state (handed in) with what a replica's index shows, and acts over gRPC. It
does nothing when nothing differs, so that it may run at any time: after a load, after a restart of
Triton or of the gateway, or every half second for no reason.

A version that fails to load is held back for a while, so that it cannot keep healthy versions out:
Triton loads all versions of a model or, if one fails, none of the new ones.
"""

import asyncio
import os
import re
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import structlog

from gateway.triton.actions import Action, DesiredModel, decide
from gateway.triton.control import load_override
from gateway.triton.errors import TritonFailed, TritonUnreachable
from gateway.triton.loads import Failure, LoadStates
from gateway.triton.model_names import ModelNames
from gateway.triton.permission import Permission, Permit, Unshared
from gateway.triton.replicas import Replica, Served

log = structlog.get_logger(__name__)

_FAILED_VERSION = re.compile(r"version (\d+) is at UNAVAILABLE state: ([^;]*)")
_RETRY_FIRST_S, _RETRY_LONGEST_S = 1.0, 60.0
_UNLOAD_TIMEOUT_S = 10.0
# More at once would share the cores, and all be ready late. A remote Triton may have more of them.
_LOADS_AT_ONCE = max(4, len(os.sched_getaffinity(0)))
_TURN_S = 15.0


class LoadObserver(Protocol):
    """Hears what a reconciler does, and may hold it up."""

    async def before_load(self) -> None:
        """Return when whoever sends requests knows what is desired."""

    def load_changed(self, replica: Replica, name: str) -> None:
        """Hear that a load or unload of a model on a replica began, ended or failed."""


class Unobserved:
    """Nobody to wait for, and nobody to tell."""

    async def before_load(self) -> None:
        """Return."""

    def load_changed(self, replica: Replica, name: str) -> None:
        """Do nothing."""


class Reconciler:
    """Acts on replicas. One action at a time for each pair of replica and model."""

    def __init__(
        self,
        desired: Callable[[], Mapping[str, DesiredModel]],
        *,
        load_timeout_s: float,
        refusal: Callable[[str, int], Awaitable[str | None]] | None = None,
        loads: LoadStates | None = None,
        observer: LoadObserver | None = None,
        names: ModelNames | None = None,
        permission: Permission | None = None,
    ) -> None:
        """
        Args:
            desired: What should be ready now, by Triton model.
            load_timeout_s: Deadline of one load, in seconds.
            refusal: Returns why a version must not be loaded, or None; asked before every load.
            loads: Where loads are recorded; by default a record of its own.
            observer: Hears of every load and unload.
            names: In which Triton models versions lie.
            permission: Asked before anything is loaded or unloaded; by default all is allowed.
        """
        self.loads = LoadStates() if loads is None else loads
        self._observer = Unobserved() if observer is None else observer
        self._desired = desired
        self._names = ModelNames() if names is None else names
        self._permission = Unshared() if permission is None else permission
        self._refusal = refusal
        self._load_timeout_s = load_timeout_s
        self._locks: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._applied: dict[tuple[str, str], tuple[int, str, int]] = {}
        self._repairs: Counter[tuple[str, str]] = Counter()
        self._loaded_at_s: dict[tuple[str, str], float] = {}
        self._tried_at_s: dict[tuple[str, str], float] = {}

    def tried_at_s(self, replica: Replica, served: Served) -> float:
        """Return when the last load of a version's Triton model began (monotonic); 0: never."""
        return self._tried_at_s.get((replica.name, self._names.triton_model(served)), 0.0)

    async def repair(self, replica: Replica, served: Served, *, noticed_at_s: float) -> None:
        """
        Reload a version and the others of its Triton model: one of their processes was seen lost
        at `noticed_at_s` (monotonic). A load since then has brought it back already.
        """
        name = self._names.triton_model(served)
        key = (replica.name, name)
        async with self._locks[key]:
            if self._loaded_at_s.get(key, 0.0) >= noticed_at_s:
                return
            self._repairs[key] += 1
            await self._settle(replica, name)

    async def reconcile(self, replica: Replica) -> None:
        """
        Bring one replica to the desired state: champions first, and as many models side by side as
        this machine has cores. What waits for a hanging load goes on without its turn.
        """
        desired = self._desired()
        names = sorted(
            (name for name in desired if self._decide(replica, name) is not None),
            key=lambda name: not desired[name].urgent,
        )
        turns = asyncio.Semaphore(_LOADS_AT_ONCE)
        await asyncio.gather(*(self._in_turn(turns, replica, name) for name in names))

    async def _in_turn(self, turns: asyncio.Semaphore, replica: Replica, name: str) -> None:
        try:
            async with asyncio.timeout(_TURN_S):
                await turns.acquire()
        except TimeoutError:
            await self._reconcile(replica, name)
            return
        try:
            await self._reconcile(replica, name)
        finally:
            turns.release()

    async def reconcile_model(self, replica: Replica, model: str) -> None:
        """
        Bring all versions of one model on one replica to the desired state. Failures are recorded
        in `loads`, not raised; an unreachable replica is marked down and left to the monitor.
        """
        names = [each.name for each in self._desired().values() if each.model == model]
        await asyncio.gather(*(self._reconcile(replica, name) for name in names))

    async def _reconcile(self, replica: Replica, name: str) -> None:
        async with self._locks[replica.name, name]:
            await self._settle(replica, name)

    async def _settle(self, replica: Replica, name: str) -> None:
        if self._decide(replica, name) is None:
            return
        async with self._permission.ask(replica.name, name) as permit:
            # Each pass either ends or holds one more version back: this comes to an end.
            while (action := self._decide(replica, name)) is not None and permit.holds():
                await self._observer.before_load()
                if action != self._decide(replica, name):
                    continue
                try:
                    await self._act(replica, action, permit)
                except TritonUnreachable:
                    replica.mark_down()
                    return

    def _decide(self, replica: Replica, name: str) -> Action | None:
        desired = self._desired().get(name)
        if desired is None or not replica.live:
            return None
        now_s = time.monotonic()
        held_back = frozenset(
            version
            for version in desired.versions
            if (failure := self.loads.failure(replica, desired.model, version))
            and failure.retry_at_s > now_s
        )
        known = self._applied.get((replica.name, name)) == self._mark(replica, desired)
        ready = self._ready(replica, desired.model, name)
        return decide(desired, ready, held_back, config_known=known)

    def _ready(self, replica: Replica, model: str, name: str) -> frozenset[int]:
        """Return which of a model's versions are ready in one of its Triton models."""
        return frozenset(
            version
            for version in replica.ready_versions(model)
            if self._names.triton_model((model, version)) == name
        )

    def _mark_ready(self, replica: Replica, action: Action) -> None:
        """Take note of what a load or unload of a Triton model has left ready."""
        before = self._ready(replica, action.model, action.name)
        ready = (replica.ready_versions(action.model) - before) | action.versions
        replica.mark_ready(action.model, ready)
        self._observer.load_changed(replica, action.model)

    def _mark(self, replica: Replica, desired: DesiredModel) -> tuple[int, str, int]:
        return replica.incarnation, desired.config_json, self._repairs[replica.name, desired.name]

    async def _act(self, replica: Replica, action: Action, permit: Permit) -> None:
        name, versions, model = action.name, action.versions, action.model
        refused = await self._refused(action)
        # This long after the decision another gateway may have the say; the caller asks for it.
        if not permit.holds():
            return
        if not versions:
            await replica.client.unload(name, timeout_s=_UNLOAD_TIMEOUT_S)
            self._applied.pop((replica.name, name), None)
            self._mark_ready(replica, action)
            log.info("unloaded", replica=replica.name, model=model, triton_model=name)
            return
        if refused:
            self._keep_out(replica, model, refused)
            return
        desired = self._desired()[name]
        mark = self._mark(replica, desired)
        served = {(model, version) for version in versions}
        replica.loading |= served
        began_s = self._tried_at_s[replica.name, name] = time.monotonic()
        self._observer.load_changed(replica, model)
        try:
            await replica.client.load(
                name,
                load_override(
                    desired.config_json, sorted(versions), self._repairs[replica.name, name]
                ),
                timeout_s=self._load_timeout_s,
            )
        except TritonFailed as error:
            self._hold_back(replica, action, str(error))
            return
        finally:
            replica.loading -= served
        took_s = time.monotonic() - began_s
        for version in versions:
            self.loads.failures.pop((replica.name, model, version), None)
            if version not in replica.ready_versions(model):
                self.loads.load_times_s[replica.name, model, version] = took_s
        self._applied[replica.name, name] = mark
        self._loaded_at_s[replica.name, name] = began_s
        self._mark_ready(replica, action)
        log.info(
            "loaded",
            replica=replica.name,
            model=model,
            triton_model=name,
            versions=sorted(versions),
            took_s=round(took_s, 3),
        )

    async def _refused(self, action: Action) -> dict[int, str]:
        """Find the versions that must not be loaded, and why."""
        if self._refusal is None:
            return {}
        reasons = {v: await self._refusal(action.model, v) for v in sorted(action.versions)}
        return {version: reason for version, reason in reasons.items() if reason is not None}

    def _hold_back(self, replica: Replica, action: Action, message: str) -> None:
        """Find which version failed and keep it out for a while; none named means all new ones."""
        named = {int(number): reason for number, reason in _FAILED_VERSION.findall(message)}
        blamed = {v: named.get(v, "") for v in action.versions if v in named} or dict.fromkeys(
            action.versions - replica.ready_versions(action.model) or action.versions, message
        )
        self._keep_out(replica, action.model, blamed)

    def _keep_out(self, replica: Replica, model: str, reasons: Mapping[int, str]) -> None:
        """Take note of failures; each further one of a version keeps it out for longer."""
        for version, reason in reasons.items():
            key = (replica.name, model, version)
            attempts = self.loads.failures[key].attempts + 1 if key in self.loads.failures else 1
            wait_s = min(_RETRY_FIRST_S * 2 ** (attempts - 1), _RETRY_LONGEST_S)
            self.loads.failures[key] = Failure(_clean(reason), attempts, time.monotonic() + wait_s)
            log.warning(
                "load_failed",
                replica=replica.name,
                model=model,
                version=version,
                reason=_clean(reason),
                attempts=attempts,
                retry_in_s=wait_s,
            )
        self._observer.load_changed(replica, model)


def _clean(reason: str) -> str:
    """Keep the first line of a reason: what follows are frames and paths of the backend."""
    first = reason.strip().splitlines()[0] if reason.strip() else "no reason given"
    return re.sub(r"(?:/[\w.@+-]+){2,}", "…", first).removeprefix("Internal: ").strip(" ;")
