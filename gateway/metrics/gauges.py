"""What Prometheus reads of the gateway's state at the moment of a scrape."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.registry.versions import Catalog
from gateway.telemetry.log_writer import dropped_lines
from gateway.telemetry.request_metrics import Recorder
from gateway.triton.replicas import ReplicaSet


class StateCollector(Collector):
    """Gauges of replicas, versions and waiting runs."""

    def __init__(
        self,
        catalog: Callable[[], Catalog],
        replicas: ReplicaSet,
        recorder: Recorder,
        load_times_s: Callable[[], dict[tuple[str, str, int], float]],
    ) -> None:
        self._catalog = catalog
        self._replicas = replicas
        self._recorder = recorder
        self._load_times_s = load_times_s

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        yield from self._replica_families()
        yield from self._version_families()
        yield from (lost_requests(self._recorder), dropped_log_lines())

    def _replica_families(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "gateway_replica_up", "1 if the Triton replica can be reached.", labels=["replica"]
        )
        restarts = CounterMetricFamily(
            "gateway_replica_restarts",
            "How often the process behind the replica was replaced by a new one.",
            labels=["replica"],
        )
        in_flight = GaugeMetricFamily(
            "gateway_replica_in_flight_requests",
            "Inferences sent to the replica and not answered yet.",
            labels=["replica"],
        )
        for replica in self._replicas:
            up.add_metric([replica.name], float(replica.live))
            restarts.add_metric([replica.name], replica.incarnation)
            in_flight.add_metric([replica.name], replica.busy)
        yield from (up, restarts, in_flight)

    def _version_families(self) -> Iterator[Metric]:
        labels = ["model", "version"]
        desired = GaugeMetricFamily(
            "gateway_version_desired", "1 if the version should be loaded.", labels=labels
        )
        ready = GaugeMetricFamily(
            "gateway_version_ready_replicas",
            "Replicas that have the version ready.",
            labels=labels,
        )
        quarantined = GaugeMetricFamily(
            "gateway_version_quarantined", "1 if the version is kept out.", labels=labels
        )
        for model in self._catalog().models.values():
            for number in model.versions:
                names = [model.name, str(number)]
                desired.add_metric(names, float(number in model.desired))
                ready.add_metric(names, len(self._replicas.serving((model.name, number))))
                quarantined.add_metric(names, float(number in model.quarantined))
        load = GaugeMetricFamily(
            "gateway_version_load_seconds",
            "How long the version's last load took.",
            labels=["replica", *labels],
        )
        for (replica, name, number), took_s in self._load_times_s().items():
            load.add_metric([replica, name, str(number)], took_s)
        yield from (desired, ready, quarantined, load)


class RunGauges(Collector):
    """
    How many runs are under way, by model: what to scale by.

    Args:
        models: Names the models that are registered.
        running, waiting: How many runs of each model are worked on, and wait for a place.
    """

    def __init__(
        self,
        models: Callable[[], Iterable[str]],
        running: Mapping[str, int],
        waiting: Mapping[str, int],
    ) -> None:
        self._models = models
        self._running = running
        self._waiting = waiting

    def collect(self) -> Iterator[Metric]:
        """Yield both."""
        running = GaugeMetricFamily(
            "gateway_running_runs", "Runs that are worked on.", labels=["model"]
        )
        waiting = GaugeMetricFamily(
            "gateway_waiting_runs", "Runs that wait for a place.", labels=["model"]
        )
        for name in self._models():
            running.add_metric([name], self._running.get(name, 0))
            waiting.add_metric([name], self._waiting.get(name, 0))
        yield from (running, waiting)


def dropped_log_lines() -> Metric:
    """Tell how many lines this process could not log because nobody read them."""
    dropped = CounterMetricFamily(
        "gateway_dropped_log_lines", "Log lines dropped because they could not be written in time."
    )
    dropped.add_metric([], dropped_lines())
    return dropped


def lost_requests(recorder: Recorder) -> Metric:
    """Tell how many requests the stored metrics lack."""
    lost = CounterMetricFamily(
        "gateway_stored_metrics_lost_requests",
        "Requests whose stored metrics were given up because the database was away.",
    )
    lost.add_metric([], recorder.lost.requests)
    return lost
