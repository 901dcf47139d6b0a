"""
Rollouts as Prometheus reads them: how many ended how, and where the live ones stand.

They are counted in the database, so that every gateway shows the same, whichever of them ended a
rollout, and a restart changes nothing. While the database is away the last counts stay.
"""

import asyncio
from collections.abc import Callable, Iterator

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.errors import StoreUnavailable
from gateway.registry.versions import Catalog
from gateway.store.database import Database
from gateway.store.rollouts import RolloutStore

log = structlog.get_logger(__name__)

ENDED = ("Succeeded", "Failed")
LIVE = ("Progressing", "Waiting", "Promoting")
_TIMEOUT_S = 1.0


class RolloutStates(Collector):
    """Counts rollouts by model. `collect` shows what the last `refresh` read."""

    def __init__(self, catalog: Callable[[], Catalog], database: Database) -> None:
        self._catalog = catalog
        self._store = RolloutStore(database)
        self._counts: dict[tuple[str, str], int] = {}

    async def refresh(self) -> None:
        """Count anew, if the database can be reached."""
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                self._counts = await self._store.count_by_phase()
        except (StoreUnavailable, TimeoutError) as error:
            log.info("rollouts_uncounted", reason=repr(error))

    def collect(self) -> Iterator[Metric]:
        """Yield both families: every registered model is in them, so that a first end is seen."""
        ended = CounterMetricFamily(
            "gateway_rollouts", "Rollouts that ended, by outcome.", labels=["model", "outcome"]
        )
        live = GaugeMetricFamily(
            "gateway_live_rollouts", "Rollouts under way, by phase.", labels=["model", "phase"]
        )
        for model in self._catalog().models:
            for outcome in ENDED:
                ended.add_metric([model, outcome], self._counts.get((model, outcome), 0))
            for phase in LIVE:
                live.add_metric([model, phase], self._counts.get((model, phase), 0))
        yield from (ended, live)
