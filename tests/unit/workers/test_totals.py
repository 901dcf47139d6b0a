"""Adding up the metrics of several processes."""

import random

import pytest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import CollectorRegistry
from prometheus_client.samples import Exemplar, Sample

from gateway.peers import Scraped
from gateway.telemetry.observation import Observation
from gateway.telemetry.prometheus import RequestInstruments
from gateway.workers.parent.totals import Totals


def _requests(value: float, *, model: str = "m", version: str = "1") -> CounterMetricFamily:
    family = CounterMetricFamily("gateway_requests", "Requests.", labels=["model", "version"])
    family.add_metric([model, version], value)
    return family


def _values(totals: Totals) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in totals.families()
        for sample in family.samples
    }


def test_counters_add_up_and_what_one_alone_shows_stays() -> None:
    """Series with the same labels are summed; those of one process are taken as they are."""
    up = GaugeMetricFamily("gateway_replica_up", "Up.", labels=["replica"])
    up.add_metric(["embedded"], 1)
    merged = Totals().merged_with([[up, _requests(1)], [_requests(2)], [_requests(4, version="2")]])
    assert _values(merged) == {
        ("gateway_replica_up", "embedded"): 1,
        ("gateway_requests_total", "m", "1"): 3,
        ("gateway_requests_total", "m", "2"): 4,
    }


def test_buckets_add_up_and_the_newest_exemplar_stays() -> None:
    """A histogram's buckets, sum and count are sums; an exemplar leads to the latest trace."""
    parts = []
    for seconds, trace in ((0.02, "a"), (0.3, "b"), (0.021, "c")):
        instruments = RequestInstruments()
        seen = Observation("run", "m", 1, status=200, total_s=seconds, trace_id=trace)
        instruments.record(seen, "m", 1)
        parts.append(instruments.own())
    shown = CollectorRegistry()
    shown.register(Scraped(Totals().merged_with(parts).families()))
    text = generate_latest(shown).decode()  # type: ignore[no-untyped-call]  # untyped library
    families = {family.name: family for family in text_string_to_metric_families(text)}  # type: ignore[no-untyped-call]  # untyped library
    samples = families["gateway_request_duration_seconds"].samples
    buckets = {s.labels["le"]: s for s in samples if s.name.endswith("_bucket")}
    assert [buckets[le].value for le in ("0.01", "0.025", "0.5", "+Inf")] == [0, 2, 3, 3]
    assert buckets["0.025"].exemplar.labels == {"trace_id": "c"}
    assert next(s.value for s in samples if s.name.endswith("_sum")) == pytest.approx(0.341)


def test_the_dead_stay_in_the_sum_to_the_last_bit() -> None:
    """Whoever dies, in whatever order: no sum becomes smaller, not even by rounding."""
    draw = random.Random(7)
    for _ in range(200):
        counted = [
            [_durations(draw.lognormvariate(-4, 2)), _durations(draw.lognormvariate(3, 2))]
            for _ in range(5)
        ]
        before = _values(Totals().merged_with(counted))
        dead = Totals()
        for death in draw.sample(range(5), 5):
            dead.add(counted[death])
            counted[death] = []
            assert _values(dead.merged_with(counted)) == before


def _durations(total_s: float) -> HistogramMetricFamily:
    family = HistogramMetricFamily("gateway_request_duration_seconds", "Durations.", labels=["m"])
    family.add_metric(["m"], [("1.0", 1), ("+Inf", 1)], total_s)
    return family


def test_a_merge_leaves_its_parts_as_they_were() -> None:
    """Two scrapes one after the other show the same."""
    dead = Totals()
    dead.add([_requests(5)])
    living = [[_requests(1)]]
    assert _values(dead.merged_with(living)) == _values(dead.merged_with(living))


def test_a_deleted_model_leaves_the_sum() -> None:
    """Series of versions that are registered no more go, those of the dead too."""
    dead = Totals()
    dead.add([_requests(5), _requests(7, version="2"), _requests(1, model="gone")])
    dead.add([_requests(2, model="", version="")])
    dead.keep_only({("m", 1)})
    assert set(_values(dead).values()) == {5, 2}


def test_no_exemplar_is_older_than_any() -> None:
    """A sample without an exemplar takes over another's."""
    family = _requests(1)
    marked = _requests(1)
    sample = marked.samples[0]
    marked.samples[0] = Sample(
        sample.name, sample.labels, sample.value, exemplar=Exemplar({"trace_id": "t"}, 1.0, 2.0)
    )
    (shown,) = Totals().merged_with([[family], [marked]]).families()
    assert shown.samples[0].exemplar == Exemplar({"trace_id": "t"}, 1.0, 2.0)
