"""
The metrics of every replica's Triton, shown beside ours with the label `replica`.

They keep Triton's own names: a counter without the suffix `_total` is shown as of unknown type,
because the exposition would rename it. The series are bounded by what is loaded. A replica that
does not answer in time is left out of this scrape.

Source: Triton, "Metrics".
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping

import httpx
import structlog
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from gateway.triton.model_names import ModelNames
from gateway.triton.replicas import Replica, ReplicaSet

log = structlog.get_logger(__name__)

_TIMEOUT_S = 2.0


class TritonMetrics(Collector):
    """Reads replicas' metrics. `collect` shows what the last `refresh` brought."""

    def __init__(self) -> None:
        self._http = httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False)
        self._families: list[Metric] = []

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def refresh(self, replicas: ReplicaSet) -> None:
        """Read every replica's metrics, side by side."""
        texts = await asyncio.gather(*(self._read(replica) for replica in replicas))
        known = (text for text in texts if text is not None)
        self._families = list(_relabelled(known, replicas.names))

    def collect(self) -> Iterator[Metric]:
        """Yield what was read last."""
        yield from self._families

    async def _read(self, replica: Replica) -> tuple[str, str] | None:
        address = replica.client.endpoint.metrics_url
        if address is None or not replica.live:
            return None
        try:
            response = await self._http.get(f"http://{address}/metrics")
            response.raise_for_status()
        except httpx.HTTPError as error:
            log.info("triton_metrics_unread", replica=replica.name, reason=repr(error))
            return None
        return replica.name, response.text


def _relabelled(texts: Iterable[tuple[str, str]], names: ModelNames) -> Iterator[Metric]:
    families: dict[str, Metric] = {}
    for replica, text in texts:
        for family in text_string_to_metric_families(text):
            kind = family.type if family.type == "gauge" else "unknown"
            for sample in family.samples:
                # The parser gives a counter the suffix that Triton's names do not have.
                name = sample.name.removesuffix("_total")
                shown = families.setdefault(name, Metric(name, family.documentation, kind))
                labels = {**sample.labels, **_served(sample.labels, names), "replica": replica}
                shown.add_sample(name, labels, sample.value)
    yield from families.values()


def _served(labels: Mapping[str, str], names: ModelNames) -> dict[str, str]:
    """Return the model that callers know, of a series that is about a version."""
    if not labels.get("version", "").isdecimal():
        return {}
    return {"model": names.served(labels["model"], int(labels["version"]))[0]}
