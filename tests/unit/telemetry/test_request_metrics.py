"""The recorder, the sketches and Prometheus' series, with no database."""

import random
from collections import Counter

import numpy as np
import pytest
from ddsketch import DDSketch, LogarithmicMapping
from ddsketch.pb import ddsketch_pb2

from gateway.telemetry.observation import Observation
from gateway.telemetry.prometheus import RequestInstruments
from gateway.telemetry.request_metrics import MINUTE_S, Recorder
from gateway.telemetry.sketches import (
    RELATIVE_ACCURACY,
    Latencies,
    LatencySketch,
    merge_packed,
    pack,
)


def _known(model: str, version: int) -> tuple[str, int]:
    return (model, version) if model == "m" else ("", 0)


@pytest.mark.parametrize("parts", [1, 7])
def test_quantiles_of_merged_sketches_are_within_one_percent(parts: int) -> None:
    """However many sketches durations are spread over, percentiles stay within 1 %."""
    draw = random.Random(parts)
    values = [draw.lognormvariate(-4, 0.8) for _ in range(5000)]
    sketches = [LatencySketch() for _ in range(parts)]
    for place, value in enumerate(values):
        sketches[place % parts].add(value)
    merged: dict[str, Latencies] = {}
    for sketch in sketches:
        merge_packed(pack({"total": sketch}), merged)
    again: dict[str, Latencies] = {}
    merge_packed(pack(merged), again)
    for found in (merged["total"], again["total"]):
        assert found.count == len(values)
        assert found.mean_s == pytest.approx(sum(values) / len(values))
        for share in (0.0, 0.5, 0.9, 0.99, 0.999, 1.0):
            exact = float(np.quantile(values, share, method="inverted_cdf"))
            assert found.quantile_s(share) == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize("count", [*range(1, 41), 99, 100, 101, 200, 500, 999, 1000])
def test_percentiles_of_few_durations_are_nearest_ranks_upwards(count: int) -> None:
    """From one sample to a thousand: numpy's inverted_cdf, and p99 is never below the median."""
    draw = random.Random(count)
    values = [draw.lognormvariate(-4, 2.0) for _ in range(count)]
    sketch = LatencySketch()
    for value in values:
        sketch.add(value)
    found: dict[str, Latencies] = {}
    merge_packed(pack({"total": sketch}), found)
    for share in (0.0, 0.25, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0):
        exact = float(np.quantile(values, share, method="inverted_cdf"))
        assert found["total"].quantile_s(share) == pytest.approx(exact, rel=0.01), share


def test_the_p99_of_two_durations_is_the_longer_one() -> None:
    """2 ms and 1.2 s: the p50 is the shorter, the p99 the longer, the mean between them."""
    sketch = LatencySketch()
    for duration_s in (0.002, 1.2):
        sketch.add(duration_s)
    found: dict[str, Latencies] = {}
    merge_packed(pack({"total": sketch}), found)
    assert found["total"].quantile_s(0.5) == pytest.approx(0.002, rel=0.01)
    assert found["total"].quantile_s(0.99) == pytest.approx(1.2, rel=0.01)
    assert found["total"].mean_s == pytest.approx(0.601)


def test_a_stored_sketch_is_the_library_s() -> None:
    """What is stored reads as a DDSketch of the same durations, bin by bin."""
    draw = random.Random(3)
    values = [draw.lognormvariate(-4, 2.0) for _ in range(2000)]
    ours, theirs = LatencySketch(), DDSketch(RELATIVE_ACCURACY)
    for value in values:
        ours.add(value)
        theirs.add(value)
    stored = ddsketch_pb2.DDSketch.FromString(ours.message()).positiveValues
    low = stored.contiguousBinIndexOffset
    found = {low + place: n for place, n in enumerate(stored.contiguousBinCounts) if n}
    expected = Counter(LogarithmicMapping(RELATIVE_ACCURACY).key(value) for value in values)
    assert found == expected
    assert theirs.count == sum(found.values())
    for share in (0.01, 0.5, 0.99):
        merged: dict[str, Latencies] = {}
        merge_packed(pack({"total": ours}), merged)
        assert merged["total"].quantile_s(share) == pytest.approx(
            theirs.get_quantile_value(share), rel=1e-9
        )


def test_no_durations_have_no_quantile() -> None:
    """Nothing is said about what was never measured."""
    assert Latencies().quantile_s(0.5) is None
    assert Latencies().mean_s is None


def test_made_up_names_add_no_cell_and_no_series() -> None:
    """100,000 unknown names are one cell and one series."""
    instruments = RequestInstruments()
    recorder = Recorder(_known, max_cells=1000, clock=lambda: 0.0, then=instruments.record)
    for number in range(100_000):
        seen = Observation("run", f"made-up-{number}", number, 409, "model_not_loaded")
        recorder.record(seen)
    assert len(recorder.unwritten()) == 1
    families = {family.name: family for family in instruments.registry.collect()}
    assert [sample.value for sample in families["gateway_requests"].samples] == [100_000.0]


def test_cells_of_a_past_minute_go_once_they_are_written() -> None:
    """What is written and over is forgotten; what grew since is not."""
    now_s = [0.0]
    recorder = Recorder(_known, max_cells=10, clock=lambda: now_s[0])
    recorder.record(Observation("run", "m", 1, 200))
    ((_, cell),) = recorder.unwritten()
    cell.written = cell.requests
    recorder.forget_written()
    recorder.record(Observation("run", "m", 1, 200))
    assert [cell.requests for _, cell in recorder.unwritten()] == [2]
    cell.written = 1
    now_s[0] = MINUTE_S
    recorder.forget_written()
    assert len(recorder.unwritten()) == 1
    cell.written = 2
    recorder.forget_written()
    assert recorder.unwritten() == []
    assert recorder.lost.requests == 0


def test_a_request_counts_for_when_and_what_it_was() -> None:
    """However late it is counted: in the minute of its answer, under the names of then."""
    now_s, known = [59.0], {("m", 1)}
    told: list[tuple[str, int]] = []

    def labels(model: str, version: int) -> tuple[str, int]:
        return (model, version) if (model, version) in known else ("", 0)

    recorder = Recorder(
        labels, max_cells=9, clock=lambda: now_s[0], then=lambda _, *found: told.append(found)
    )
    recorder.record(Observation("run", "m", 1, 200))
    now_s[0] = 60.0
    known.clear()
    recorder.record(Observation("run", "m", 1, 200))
    assert told == []
    keys = [key for key, _ in recorder.unwritten()]
    assert [(key.start_s, key.model) for key in keys] == [(0, "m"), (60, "")]
    assert told == [("m", 1), ("", 0)]


def test_what_cannot_be_held_is_given_up_and_counted() -> None:
    """Memory is bounded while the database is away; the oldest goes first."""
    now_s = [0.0]
    recorder = Recorder(_known, max_cells=3, clock=lambda: now_s[0])
    for minute in range(5):
        now_s[0] = minute * MINUTE_S
        recorder.record(Observation("run", "m", 1, 200))
        recorder.record(Observation("run", "m", 1, 200))
    assert [key.start_s for key, _ in recorder.unwritten()] == [120, 180, 240]
    assert (recorder.lost.rows, recorder.lost.requests) == (2, 4)


def test_a_cell_that_still_counts_is_kept() -> None:
    """More kinds of requests in one minute than may be held: each is still counted in one cell."""
    recorder = Recorder(_known, max_cells=2, clock=lambda: 0.0)
    for status in (200, 404, 409, 200, 404, 409):
        recorder.record(Observation("run", "m", 1, status))
    assert [cell.requests for _, cell in recorder.unwritten()] == [2, 2, 2]
    assert recorder.lost.requests == 0


def test_series_of_a_deleted_version_go() -> None:
    """What is registered no more is shown no more."""
    instruments = RequestInstruments()
    for version in (1, 2):
        seen = Observation("run", "m", version, 200, stages_s={"infer": 0.1})
        instruments.record(seen, "m", version)
    instruments.keep_only({("m", 2)})
    shown = {
        sample.labels["version"]
        for family in instruments.registry.collect()
        for sample in family.samples
    }
    assert shown == {"2"}
