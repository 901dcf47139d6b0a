"""
How the gateway is: whether runs are answered, and whether what should be loaded at start is loaded.

Ready means that runs are answered, and no more. What is away beside that makes it degraded: without
the database runs go on from the last catalog, and to take every gateway out for it would turn a
small outage into a whole one. Nothing here waits for long: who asks for health has little patience.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.errors import StoreUnavailable
from gateway.inference.admission import Admission
from gateway.registry.registry import Registry
from gateway.triton.loads import LoadStates
from gateway.triton.replicas import ReplicaSet, Served

_DATABASE_PATIENCE_S = 0.1


@dataclass(frozen=True, slots=True)
class Check:
    """
    The outcome of one health check.

    Attributes:
        ok: Runs are answered, as far as this is concerned.
        detail: What was found. Strangers read it: it names no model.
        degraded: Something is away all the same.
    """

    ok: bool
    detail: str
    degraded: bool = False


class HealthChecks:
    """Looks at the parts of a gateway."""

    def __init__(
        self, registry: Registry, replicas: ReplicaSet, loads: LoadStates, admission: Admission
    ) -> None:
        self._registry = registry
        self._replicas = replicas
        self._loads = loads
        self._admission = admission
        self._has_started = False
        self._asking_database: asyncio.Task[bool] | None = None

    async def ready(self) -> dict[str, Check]:
        """Check whether runs are answered: not stopping, started, a replica, models on it."""
        live, known = len(self._replicas.live()), len(self._replicas.replicas)
        return {
            "accepting": Check(
                not self._admission.leaving, "draining" if self._admission.leaving else "accepting"
            ),
            "replicas": Check(live > 0, f"{live} of {known} can be reached", live < known),
            "loads": self._loads_tried(),
            "database": await self._database(),
        }

    def started(self) -> dict[str, Check]:
        """Check that every version that should be loaded is ready, or has been given up for now."""
        missing = sum(
            self._loads.failure(replica, *served) is None
            for served in self._desired()
            for replica in self._replicas.live()
            if served not in replica.ready
        )
        live = len(self._replicas.live())
        return {
            "replicas": Check(live > 0, f"{live} can be reached"),
            "loads": Check(not missing, f"waiting for {missing} loads" if missing else "done"),
        }

    def settled(self) -> bool:
        """Whether nothing that should be loaded is still to come."""
        wanted = any(True for _ in self._desired())
        settled = not wanted or all(check.ok for check in self.started().values())
        self._has_started |= settled
        return settled

    def _desired(self) -> Iterator[Served]:
        for name, model in self._registry.catalog.models.items():
            for version in model.desired - model.quarantined.keys():
                yield name, version

    def _loads_tried(self) -> Check:
        """
        Check that runs find a model.

        Not before what should be loaded at start was tried once: others answer meanwhile. Later,
        one version that does not load is its own callers' trouble, and what is loaded for the
        first time is missed by nobody.
        """
        has_started = self._has_started or self.settled()
        desired = set(self._desired()) - self._loads.first_loads
        served = {served for replica in self._replicas.live() for served in desired & replica.ready}
        return Check(
            has_started and (not desired or bool(served)),
            f"{len(served)} of {len(desired)} answer" if has_started else "starting",
            degraded=len(served) < len(desired),
        )

    async def _database(self) -> Check:
        """Ask for the catalog's generation. Who comes meanwhile waits for the same answer."""
        asking = self._asking_database
        if asking is None or asking.done():
            asking = self._asking_database = asyncio.create_task(self._ask_database())
        await asyncio.wait({asking}, timeout=_DATABASE_PATIENCE_S)
        answers = asking.done() and not asking.cancelled() and asking.result()
        return Check(ok=True, detail="answers" if answers else "away", degraded=not answers)

    async def _ask_database(self) -> bool:
        try:
            # The first sees that the file was deleted; the second asks the server.
            await self._registry.store.data_version()
            await self._registry.store.generation()
        except StoreUnavailable:
            return False
        return True
