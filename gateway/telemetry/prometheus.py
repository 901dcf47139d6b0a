"""
Metrics for Prometheus, by its conventions: base units, `_total` for what only grows, labels only
from registered names. Series of a version go when the version does.

Counted in plain numbers and shown as the client library's families: its own instruments take a lock
and some checks for each of the nine numbers that a request changes. The buckets cover a tensor of a
small model up to a request that waits for its deadline.

Source: Prometheus, "Metric and label naming"; the OpenMetrics specification.
"""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Set
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from gateway.telemetry.observation import Observation

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BOUNDS = [*(str(bound) for bound in BUCKETS_S), "+Inf"]
_LABELS = ("endpoint", "model", "version")


class _Histogram:
    """Durations by bucket, and the last traced one in each."""

    __slots__ = ("counts", "exemplars", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * len(_BOUNDS)
        self.sum_s = 0.0
        self.exemplars: dict[int, Exemplar] = {}

    def observe(self, duration_s: float, trace_id: str = "") -> None:
        place = bisect_left(BUCKETS_S, duration_s)
        self.counts[place] += 1
        self.sum_s += duration_s
        if trace_id:
            # It leads from a bucket to one trace.
            self.exemplars[place] = Exemplar({"trace_id": trace_id}, duration_s, time.time())

    def buckets(self) -> list[tuple[str, float] | tuple[str, float, Exemplar]]:
        """Each bound with the count of what does not exceed it."""
        shown: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
        total = 0
        for place, bound in enumerate(_BOUNDS):
            total += self.counts[place]
            exemplar = self.exemplars.get(place)
            shown.append((bound, total) if exemplar is None else (bound, total, exemplar))
        return shown


class _Key(NamedTuple):
    endpoint: str
    model: str
    version: int

    @property
    def labels(self) -> list[str]:
        return [self.endpoint, self.model, _text(self.version)]


class _Series:
    """What is counted of one endpoint, model and version."""

    __slots__ = ("bytes_in", "bytes_out", "codes", "duration", "statuses")

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.codes: Counter[str] = Counter()
        self.duration = _Histogram()
        self.bytes_in = 0
        self.bytes_out = 0


class RequestInstruments(Collector):
    """The counters and histograms of requests, in a registry of their own."""

    def __init__(self) -> None:
        self._series: dict[_Key, _Series] = {}
        self._stages: dict[tuple[str, int], dict[str, _Histogram]] = {}
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def add(self, collector: Collector) -> None:
        """Show another collector's metrics, too."""
        self.registry.register(collector)

    def record(self, seen: Observation, model: str, version: int) -> None:
        """Count one answered request under labels that the recorder found to be registered."""
        key = _Key(seen.endpoint, model, version)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _Series()
        series.statuses[seen.status] += 1
        series.duration.observe(seen.total_s, seen.trace_id)
        series.bytes_in += seen.bytes_in
        series.bytes_out += seen.bytes_out
        if seen.code:
            series.codes[seen.code] += 1
        if not seen.stages_s:
            return
        stages = self._stages.get((model, version))
        if stages is None:
            stages = self._stages[model, version] = {}
        for stage, duration_s in seen.stages_s.items():
            histogram = stages.get(stage)
            if histogram is None:
                histogram = stages[stage] = _Histogram()
            histogram.observe(duration_s)

    def collect(self) -> Iterator[Metric]:
        """Show what was counted."""
        # Requests go on while another thread shows: copies, each made in one step.
        series = list(self._series.items())
        requests = CounterMetricFamily(
            "gateway_requests",
            "Requests answered, by endpoint, model, version and HTTP status.",
            labels=(*_LABELS, "status"),
        )
        errors = CounterMetricFamily(
            "gateway_request_errors",
            "Requests answered with an error, by the error's code.",
            labels=(*_LABELS, "code"),
        )
        duration = HistogramMetricFamily(
            "gateway_request_duration_seconds",
            "From a request's arrival to the last byte of its answer.",
            labels=_LABELS,
        )
        bytes_in = CounterMetricFamily(
            "gateway_request_body_bytes", "Bytes of request bodies.", labels=_LABELS
        )
        bytes_out = CounterMetricFamily(
            "gateway_response_body_bytes", "Bytes of response bodies.", labels=_LABELS
        )
        for key, one in series:
            for status, count in list(one.statuses.items()):
                requests.add_metric([*key.labels, str(status)], count)
            for code, count in list(one.codes.items()):
                errors.add_metric([*key.labels, code], count)
            duration.add_metric(key.labels, one.duration.buckets(), one.duration.sum_s)
            bytes_in.add_metric(key.labels, one.bytes_in)
            bytes_out.add_metric(key.labels, one.bytes_out)
        yield from (requests, errors, duration, self._stage_durations(), bytes_in, bytes_out)

    def _stage_durations(self) -> HistogramMetricFamily:
        family = HistogramMetricFamily(
            "gateway_run_stage_duration_seconds",
            "A run's stages: queue (for a place), decode (the image), infer (Triton).",
            labels=("model", "version", "stage"),
        )
        for (model, version), stages in list(self._stages.items()):
            for stage, histogram in list(stages.items()):
                labels = [model, _text(version), stage]
                family.add_metric(labels, histogram.buckets(), histogram.sum_s)
        return family

    def keep_only(self, registered: Set[tuple[str, int]]) -> None:
        """Drop the series of versions that are registered no more."""
        models = {model for model, _ in registered}

        def known(model: str, version: int) -> bool:
            if not model:
                return True
            return model in models and (not version or (model, version) in registered)

        self._series = {
            key: one for key, one in self._series.items() if known(key.model, key.version)
        }
        self._stages = {key: one for key, one in self._stages.items() if known(*key)}


def _text(version: int) -> str:
    return str(version) if version else ""
