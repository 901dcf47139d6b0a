"""
Answering questions about stored metrics: which resolution to read for which part of the time asked
for, and what the rows say together.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.metrics.merging import Sum, add_up
from gateway.store.request_metrics import (
    DAY_S,
    HOUR_S,
    MINUTE_S,
    Filters,
    Level,
    RequestMetricsStore,
    StoredMetrics,
)
from gateway.telemetry.sketches import Latencies

DIMENSIONS = ("endpoint", "model", "version", "status")
QUANTILES: Mapping[str, float] = {"p50_s": 0.5, "p90_s": 0.9, "p99_s": 0.99, "p999_s": 0.999}


@dataclass(frozen=True, slots=True)
class Question:
    """
    What is asked.

    Attributes:
        start_s, end_s: The time, from and until before, UTC in seconds; end_s > start_s.
        step_s: Length of one answered span; None for the whole time in one.
        group_by: Which of DIMENSIONS are told apart.
        filters: Which requests count.
    """

    start_s: int
    end_s: int
    step_s: int | None
    group_by: tuple[str, ...] = DIMENSIONS
    filters: Filters = field(default_factory=Filters)


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the time, and the resolution at which its rows are read."""

    resolution_s: int
    start_s: int
    end_s: int


@dataclass(frozen=True, slots=True)
class QueryRow:
    """One row of an answer: the sum of a group's requests in one span."""

    start_s: int
    group: tuple[str | int, ...]
    total: Sum


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The rows, by start and group, and the time and step that they really stand for."""

    start_s: int
    end_s: int
    step_s: int
    group_by: tuple[str, ...]
    rows: Sequence[QueryRow]


def segments(
    start_s: int, end_s: int, step_s: int | None, levels: Mapping[int, Level]
) -> list[Segment]:
    """
    Choose what to read: the coarsest resolution that is complete and fits the step, and where finer
    rows are deleted already, the finest that is left. The start moves back to the beginning of its
    first span, the end forward to that of the next minute.
    """
    minutes_from_s, hours_from_s = levels[MINUTE_S].kept_from_s, levels[HOUR_S].kept_from_s
    end_s = -(-end_s // MINUTE_S) * MINUTE_S
    found: list[Segment] = []
    for begin_s, until_s, finest_s in (
        (start_s, min(end_s, hours_from_s), DAY_S),
        (max(start_s, hours_from_s), min(end_s, minutes_from_s), HOUR_S),
        (max(start_s, minutes_from_s), end_s, MINUTE_S),
    ):
        first_s = begin_s // finest_s * finest_s
        if begin_s < until_s:
            found += _coarsen(Segment(finest_s, first_s, until_s), step_s, levels)
    return found


def _coarsen(
    segment: Segment, step_s: int | None, levels: Mapping[int, Level]
) -> Iterable[Segment]:
    """Read the middle of a segment at the next coarser resolution, if it is there and fits."""
    coarser_s = {MINUTE_S: HOUR_S, HOUR_S: DAY_S}.get(segment.resolution_s)
    if coarser_s is None or (step_s is not None and step_s % coarser_s):
        return [segment]
    begin_s = -(-segment.start_s // coarser_s) * coarser_s
    until_s = min(segment.end_s, levels[coarser_s].complete_to_s) // coarser_s * coarser_s
    begin_s = max(begin_s, levels[coarser_s].kept_from_s)
    if begin_s >= until_s:
        return [segment]
    parts = [
        Segment(segment.resolution_s, segment.start_s, begin_s),
        *_coarsen(Segment(coarser_s, begin_s, until_s), step_s, levels),
        Segment(segment.resolution_s, until_s, segment.end_s),
    ]
    return [part for part in parts if part.start_s < part.end_s]


async def ask(store: RequestMetricsStore, question: Question) -> QueryResult:
    """
    Answer a question.

    Raises:
        StoreUnavailable: The database is away.
    """
    levels = await store.levels()
    parts = segments(question.start_s, question.end_s, question.step_s, levels)
    rows: list[StoredMetrics] = []
    for part in parts:
        rows += await store.read(part.resolution_s, part.start_s, part.end_s, question.filters)
    start_s = min(part.start_s for part in parts)
    end_s = max(part.end_s for part in parts)
    # A span is never shorter than the rows that it was read from.
    finest_s = max(part.resolution_s for part in parts)
    step_s = max(question.step_s, finest_s) if question.step_s else end_s - start_s

    def group(row: StoredMetrics) -> tuple[int, tuple[str | int, ...]]:
        values = tuple(getattr(row, dimension) for dimension in question.group_by)
        return (row.start_s // step_s * step_s if question.step_s else start_s), values

    # Thousands of sketches may have to be merged; requests go on meanwhile.
    sums = await asyncio.to_thread(add_up, rows, group)
    answered = [QueryRow(key[0], key[1], sums[key]) for key in sorted(sums)]
    return QueryResult(start_s, end_s, step_s, question.group_by, answered)


def describe(row: QueryRow, answer: QueryResult) -> dict[str, object]:
    """Turn a row into the values that JSON, CSV and Parquet have in common; times in seconds."""
    total = row.total
    named = dict(zip(answer.group_by, row.group, strict=True))
    requests = total.requests
    failed = sum(count for status, count in total.statuses.items() if status >= 400)
    crashed = sum(count for status, count in total.statuses.items() if status >= 500)
    return {
        "start_s": row.start_s,
        **{dimension: named[dimension] for dimension in DIMENSIONS if dimension in named},
        "requests": requests,
        "rate_per_s": requests / answer.step_s,
        "errors": failed,
        "server_errors": crashed,
        "error_share": failed / requests,
        "error_codes": dict(sorted(total.errors.items())),
        "bytes_in": total.bytes_in,
        "bytes_out": total.bytes_out,
        **_durations(total.latencies.get("total"), ""),
        **{
            name: value
            for stage in ("queue", "decode", "infer")
            for name, value in _durations(total.latencies.get(stage), f"{stage}_").items()
        },
    }


def _durations(latencies: Latencies | None, prefix: str) -> dict[str, float | None]:
    found = latencies or Latencies()
    quantiles = {name: found.quantile_s(share) for name, share in QUANTILES.items()}
    return {
        f"{prefix}{name}": value for name, value in {**quantiles, "mean_s": found.mean_s}.items()
    }
