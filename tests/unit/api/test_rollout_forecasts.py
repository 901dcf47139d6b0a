"""What a model's stored metrics say to a forecast."""

import pytest

from gateway.api.rest.rollout_forecasts import known_traffic
from gateway.metrics.merging import Sum
from gateway.metrics.query import QueryResult, QueryRow
from gateway.rollouts.state.forecast import KnownTraffic
from gateway.telemetry.sketches import Latencies, LatencySketch


def _latencies(durations_s: list[float]) -> Latencies:
    sketch, found = LatencySketch(), Latencies()
    for duration_s in durations_s:
        sketch.add(duration_s)
    found.add_message(sketch.message(), sketch.sum_s)
    return found


def _row(start_s: int, statuses: dict[int, int], *stages: str) -> QueryRow:
    total = Sum(requests=sum(statuses.values()))
    total.statuses.update(statuses)
    for stage in stages:
        total.latencies[stage] = _latencies([0.01] * 90 + [0.1] * 10)
    return QueryRow(start_s, ("run",), total)


def _answer(*rows: QueryRow) -> QueryResult:
    return QueryResult(0, 86_400, 600, ("endpoint",), rows)


def test_traffic_is_what_versions_were_asked() -> None:
    """Callers' mistakes and requests that ask no version count nothing; failures of versions do."""
    found = known_traffic(
        _answer(
            _row(600, {200: 900, 404: 500, 503: 10}, "infer", "total"),
            _row(1200, {200: 90}, "infer", "total"),
            _row(0, {200: 10_000}, "total"),
        ),
        now_s=1600,
    )
    assert found.requests_per_s == pytest.approx(1.0)
    assert found.error_rate == pytest.approx(0.01)
    assert found.latencies.total == pytest.approx(1.0)
    assert found.latencies.latency_s(50) == pytest.approx(0.01, rel=0.02)
    assert found.latencies.latency_s(95) == pytest.approx(0.1, rel=0.02)


def test_a_model_without_requests_has_no_rate() -> None:
    """Nothing stored, or only refusals: the rate is 0 and the rest is assumed."""
    assert known_traffic(_answer(), now_s=1) == KnownTraffic()
    assert known_traffic(_answer(_row(0, {404: 9}, "infer")), now_s=1) == KnownTraffic()
