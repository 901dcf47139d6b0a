"""From measurements to verdicts: medians, ratios, growth, and a request's stages."""

from dataclasses import replace

import pytest

from perf.bench.summary import Cell, summarise
from perf.bench.tables import cells_of
from perf.breakdown import TritonAccount, break_down
from perf.soak import GROWTH_BYTES, judge
from perf.soak_watcher import Sample

_CELL = Cell("W1", 4, "original", 0, 100, 10.0, 1.0, 2.0, 3.0, 1000, 0.0, 0)
_SAMPLE = Sample(1000, 100_000_000, 50_000_000, 50, 80, 4)


def _rates(server: str, *rates: float) -> list[Cell]:
    return [replace(_CELL, server=server, round=n, rate=rate) for n, rate in enumerate(rates)]


def test_ratios_are_taken_within_a_round() -> None:
    """A machine that is slower in one round slows both: the ratio stays."""
    rows = summarise(_rates("original", 10, 20, 40) + _rates("gateway", 20, 40, 120))
    by_server = {row.server: row for row in rows}
    assert by_server["gateway"].ratio == 2.0
    assert by_server["gateway"].ratio_range == (2.0, 3.0)
    assert by_server["gateway"].rate == 40
    assert by_server["original"].ratio == 1.0


def test_one_error_makes_a_row_invalid() -> None:
    """No figure is shown of a cell with errors."""
    cells = [*_rates("gateway", 10, 20), replace(_CELL, server="gateway", round=2, errors=1)]
    (row,) = summarise(cells)
    assert row.errors == 1
    assert row.ratio is None
    assert "invalid: 1 errors" in cells_of(row)
    assert "10.0" not in cells_of(row)


def _samples(**last: int) -> list[Sample]:
    return [_SAMPLE] * 5 + [replace(_SAMPLE, **last)] * 4


def test_what_stays_is_no_leak() -> None:
    """Equal samples, and a wobble below the limit, are no finding."""
    assert judge(_samples(), 0) == []
    assert judge(_samples(gateway_bytes=100_000_000 + GROWTH_BYTES - 1), 0) == []


@pytest.mark.parametrize(
    "last",
    [
        {"gateway_bytes": 100_000_000 + GROWTH_BYTES},
        {"triton_bytes": 50_000_000 + GROWTH_BYTES},
        {"gateway_files": 51},
        {"triton_files": 81},
        {"regions": 5},
    ],
)
def test_each_growth_is_found(last: dict[str, int]) -> None:
    """Memory by the limit, files and regions by one."""
    (found,) = judge(_samples(**last), 0)
    assert found.startswith(next(iter(last)))


def test_too_few_samples_are_no_verdict() -> None:
    """A soak that ended in its warm-up has shown nothing."""
    (found,) = judge(_samples(), 2000)
    assert "too few" in found


def test_stages_add_up_to_the_whole() -> None:
    """The parts of a request are its time, and Triton's part is the difference of its accounts."""
    told = {"total_ms": 20.0, "decode_ms": 5.0, "queue_ms": 1.0, "infer_ms": 8.0}
    told |= {"answers": 10, "errors": 0}
    before = TritonAccount(100, 7_000_000, 50_000_000)
    after = TritonAccount(110, 17_000_000, 90_000_000)
    row = break_down("W1", 1, told, before, after)
    assert (row.triton_ms, row.model_ms, row.ipc_ms, row.http_ms) == (1.0, 4.0, 3.0, 6.0)
    parts = (row.http_ms, row.decode_ms, row.queue_ms, row.ipc_ms, row.triton_ms, row.model_ms)
    assert sum(parts) == row.total_ms


def test_a_breakdown_with_errors_is_refused() -> None:
    """Means of answers that failed say nothing."""
    told = dict.fromkeys(("total_ms", "decode_ms", "queue_ms", "infer_ms"), 1.0)
    account = TritonAccount(0, 0, 0)
    with pytest.raises(ValueError, match="W1"):
        break_down("W1", 1, {**told, "answers": 5, "errors": 1}, account, account)
