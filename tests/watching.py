"""A monitor over replicas that a test brings; nothing of them dies, and no memory is shared."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from gateway.triton.monitor import Monitor
from gateway.triton.probe import Probe
from gateway.triton.reconciler import Reconciler
from gateway.triton.replicas import ReplicaSet, Served


@asynccontextmanager
async def watching(
    reconciler: Reconciler,
    *,
    probes: Callable[[], Mapping[Served, Probe]] = dict,
    poll_s: float = 0.05,
    probe_interval_s: float = 60,
) -> AsyncIterator[tuple[Monitor, ReplicaSet]]:
    """Yield a monitor and the set that it keeps; end both with the block."""
    replicas = ReplicaSet()
    monitor = Monitor(
        replicas,
        reconciler,
        probes=probes,
        quarantine=_nothing_dies,
        poll_s=poll_s,
        probe_interval_s=probe_interval_s,
        shared_bytes=lambda _replica: 0,
    )
    try:
        yield monitor, replicas
    finally:
        await monitor.stop()
        await replicas.close()


async def _nothing_dies(_served: Served, _reason: str) -> None:
    """Until something does."""
