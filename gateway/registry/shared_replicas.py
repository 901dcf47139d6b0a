"""
Replicas that several gateways share: one gateway at a time changes a model on a replica, and only
by a catalog that it has confirmed since it was allowed to.

Before a load or unload the gateway takes a lease in the database, then reads the catalog, then
decides anew. So a gateway that has lost the database, or stood still while the others went on, only
serves: it does not act by what was desired once. Time is the database's; here, the lease runs from
before it was asked for, on a clock that goes on while the process stands still. The fencing number
tells a lease that was extended from one that somebody else had in between.

Triton knows no fencing numbers. A process that is halted between its last look at the clock and the
call, some microseconds, may make that one call when it goes on; the next look at the replica mends
what it did.
"""

import asyncio
import contextlib
import hashlib
import time
import uuid
from collections.abc import AsyncIterator

import structlog

from gateway.errors import StoreUnavailable
from gateway.registry.registry import Registry
from gateway.store.leases import LeaseStore
from gateway.store.outage import StoreOutage
from gateway.triton.permission import Permit

log = structlog.get_logger(__name__)

LEASE_S = 5.0
"""How long the others wait for a gateway that died while it loaded or unloaded something."""


class SharedReplicas:
    """Gives permits by leases in the database."""

    def __init__(self, registry: Registry, *, lease_s: float = LEASE_S) -> None:
        """
        Args:
            registry: Its catalog is confirmed within each lease.
            lease_s: How long one lasts unless it is extended, in seconds.
        """
        self._registry = registry
        self._leases = registry.store.leases
        self._lease_s = lease_s
        self._owner = uuid.uuid4().hex
        self._outage = StoreOutage("replicas_only_serve", "replicas_are_kept")

    @contextlib.asynccontextmanager
    async def ask(self, replica: str, triton_model: str) -> AsyncIterator[Permit]:
        """Take the lease of a model on a replica, unless another gateway has it."""
        lease = _Lease(self._leases, _name(replica, triton_model), self._owner, self._lease_s)
        with self._outage.tolerated():
            if await lease.take():
                await self._registry.refresh()
        if not lease.holds():
            yield lease
            return
        extending = asyncio.create_task(lease.extend())
        try:
            yield lease
        finally:
            extending.cancel()
            await asyncio.gather(extending, return_exceptions=True)
            await lease.release()


class _Lease:
    """A lease, and until when it may be relied upon."""

    def __init__(self, leases: LeaseStore, name: str, owner: str, lease_s: float) -> None:
        self._leases = leases
        self._name = name
        self._owner = owner
        self._lease_s = lease_s
        self._number = 0
        self._until_s = 0.0

    def holds(self) -> bool:
        return time.monotonic() < self._until_s

    async def take(self) -> bool:
        asked_s = time.monotonic()
        self._number = await self._hold()
        self._until_s = asked_s + self._lease_s if self._number else 0.0
        return self._number > 0

    async def extend(self) -> None:
        """Extend it again and again, until it is lost."""
        while True:
            await asyncio.sleep(self._lease_s / 3)
            asked_s = time.monotonic()
            try:
                number = await self._hold()
            except StoreUnavailable:
                continue
            if number != self._number:
                self._until_s = 0.0
                log.warning("lease_lost", lease=self._name, number=self._number, now=number)
                return
            self._until_s = asked_s + self._lease_s

    async def release(self) -> None:
        """Give it back. Where that fails, it runs out by itself."""
        self._until_s = 0.0
        with contextlib.suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(self._lease_s):
                await self._leases.release(self._name, self._owner)

    async def _hold(self) -> int:
        """Ask the database, for no longer than the lease would last."""
        try:
            async with asyncio.timeout(self._lease_s):
                return await self._leases.hold(self._name, self._owner, for_s=self._lease_s)
        except TimeoutError as error:
            raise StoreUnavailable("The database does not answer.") from error


def _name(replica: str, triton_model: str) -> str:
    digest = hashlib.sha256(f"{replica}/{triton_model}".encode()).hexdigest()
    return f"act:{digest[:40]}"
