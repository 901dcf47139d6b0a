"""
Metrics for Prometheus, by its conventions: base units, `_total` for what only grows, labels only
from registered names. Series of a version go when the version does.

The client library cannot write native histograms yet. The buckets below reach from a tensor of a
small model to a request that waits for its deadline.

Source: Prometheus, "Metric and label naming"; the OpenMetrics specification.
"""

from collections.abc import Set

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from gateway.telemetry.observation import Observation

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LABELS = ("endpoint", "model", "version")


class RequestInstruments:
    """The counters and histograms of requests, in a registry of their own."""

    def __init__(self) -> None:
        # One more series for each, that no rule here asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # untyped library
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "gateway_requests",
            "Requests answered, by endpoint, model, version and HTTP status.",
            (*_LABELS, "status"),
            registry=self.registry,
        )
        self._errors = Counter(
            "gateway_request_errors",
            "Requests answered with an error, by the error's code.",
            (*_LABELS, "code"),
            registry=self.registry,
        )
        self._refused = Counter(
            "gateway_refused_requests",
            "Requests refused without being worked on, by the reason.",
            ("model", "reason"),
            registry=self.registry,
        )
        self._duration = Histogram(
            "gateway_request_duration_seconds",
            "From a request's arrival to the last byte of its answer.",
            _LABELS,
            buckets=BUCKETS_S,
            registry=self.registry,
        )
        self._stage = Histogram(
            "gateway_run_stage_duration_seconds",
            "A run's stages: queue (for a place), decode (the image), infer (Triton).",
            ("model", "version", "stage"),
            buckets=BUCKETS_S,
            registry=self.registry,
        )
        self._bytes_in = Counter(
            "gateway_request_body_bytes",
            "Bytes of request bodies.",
            _LABELS,
            registry=self.registry,
        )
        self._bytes_out = Counter(
            "gateway_response_body_bytes",
            "Bytes of response bodies.",
            _LABELS,
            registry=self.registry,
        )
        # `labels` looks its child up under a lock; these are looked up in one plain dictionary.
        self._children: dict[tuple[str, str, int, int], _Children] = {}

    def own(self) -> list[Metric]:
        """Show the requests alone, without what was added."""
        instruments = (
            self._requests,
            self._errors,
            self._refused,
            self._duration,
            self._stage,
            self._bytes_in,
            self._bytes_out,
        )
        return [family for instrument in instruments for family in instrument.collect()]

    def add(self, collector: Collector) -> None:
        """Show another collector's metrics, too."""
        self.registry.register(collector)

    def record(self, seen: Observation, model: str, version: int) -> None:
        """Count one answered request under labels that the recorder found to be registered."""
        key = seen.endpoint, model, version, seen.status
        children = self._children.get(key)
        if children is None:
            children = self._children[key] = self._make(seen, model, version)
        # An exemplar leads from a bucket to one trace.
        exemplar = {"trace_id": seen.trace_id} if seen.trace_id else None
        children.requests.inc()
        children.duration.observe(seen.total_s, exemplar)
        if seen.bytes_in:
            children.bytes_in.inc(seen.bytes_in)
        children.bytes_out.inc(seen.bytes_out)
        if seen.code:
            self._errors.labels(seen.endpoint, model, _text(version), seen.code).inc()
        if seen.refusal:
            self._refused.labels(model, seen.refusal).inc()
        for stage, duration_s in seen.stages_s.items():
            histogram = children.stages.get(stage)
            if histogram is None:
                histogram = self._stage.labels(model, _text(version), stage)
                children.stages[stage] = histogram
            histogram.observe(duration_s)

    def _make(self, seen: Observation, model: str, version: int) -> "_Children":
        labels = seen.endpoint, model, _text(version)
        return _Children(
            requests=self._requests.labels(*labels, str(seen.status)),
            duration=self._duration.labels(*labels),
            bytes_in=self._bytes_in.labels(*labels),
            bytes_out=self._bytes_out.labels(*labels),
        )

    def keep_only(self, registered: Set[tuple[str, int]]) -> None:
        """Drop the series of versions that are registered no more."""
        models = {model for model, _ in registered}
        gone = [
            key
            for key in self._children
            if key[1] and (key[1] not in models or (key[2] and (key[1], key[2]) not in registered))
        ]
        for endpoint, model, version, status in gone:
            del self._children[endpoint, model, version, status]
            labels = {"endpoint": endpoint, "model": model, "version": _text(version)}
            for metric in (self._requests, self._errors, self._duration):
                metric.remove_by_labels(labels)
            for metric in (self._bytes_in, self._bytes_out):
                metric.remove_by_labels(labels)
            if model not in models:
                self._refused.remove_by_labels({"model": model})
            self._stage.remove_by_labels({"model": model, "version": _text(version)})


class _Children:
    """The series of one endpoint, model, version and status."""

    __slots__ = ("bytes_in", "bytes_out", "duration", "requests", "stages")

    def __init__(
        self, *, requests: Counter, duration: Histogram, bytes_in: Counter, bytes_out: Counter
    ) -> None:
        self.requests = requests
        self.duration = duration
        self.bytes_in = bytes_in
        self.bytes_out = bytes_out
        self.stages: dict[str, Histogram] = {}


def _text(version: int) -> str:
    return str(version) if version else ""
