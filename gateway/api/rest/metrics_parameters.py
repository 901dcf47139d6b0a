"""What questions about the stored metrics are asked with, read from their texts."""

import time
from enum import StrEnum
from typing import Annotated, Any

from fastapi import Query

from gateway.errors import MetricsQueryInvalid
from gateway.inference.pinned import read_version
from gateway.metrics.formats import COLUMNS
from gateway.metrics.query import DIMENSIONS
from gateway.metrics.times import (
    LENGTH_PATTERN,
    MOMENT_PATTERN,
    read_length_s,
    read_moment_s,
)
from gateway.store.request_metrics import DAY_S, HOUR_S, MINUTE_S

_MAX_SPANS = 50_000


class Format(StrEnum):
    """How an answer is written."""

    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


_MOMENT = {"pattern": MOMENT_PATTERN}
Start = Annotated[
    str | None,
    Query(
        description="From when: ISO 8601 or seconds since 1970. Default: `last`.",
        json_schema_extra=_MOMENT,
    ),
]
End = Annotated[
    str | None,
    Query(description="Until before when. Default: now.", json_schema_extra=_MOMENT),
]
Last = Annotated[
    str,
    Query(
        description="Without `start`: so long before the end.",
        examples=["7d"],
        json_schema_extra={"pattern": LENGTH_PATTERN},
    ),
]
Models = Annotated[list[str], Query(alias="model", description="Only these models.")]
Versions = Annotated[list[str], Query(alias="version", description="Only these versions.")]


TABLE: dict[str, Any] = {
    "content": {
        "text/csv": {"schema": {"type": "string"}, "example": ",".join(COLUMNS[:10])},
        "application/vnd.apache.parquet": {"schema": {"type": "string", "format": "binary"}},
    }
}
EXPOSITION: dict[str, Any] = {
    "content": {
        "text/plain": {
            "schema": {"type": "string"},
            "example": 'gateway_requests_total{endpoint="run",model="digits",status="200"} 7.0',
        },
        "application/openmetrics-text": {"schema": {"type": "string"}},
    }
}


def read_range(start: str | None, end: str | None, last: str) -> tuple[int, int]:
    """
    Read a range of time, in Unix seconds, without its end.

    Raises:
        MetricsQueryInvalid: It cannot be read, or ends before it begins.
    """
    end_s = read_moment_s(end) if end is not None else int(time.time()) + 1
    start_s = read_moment_s(start) if start is not None else max(0, end_s - read_length_s(last))
    if start_s >= end_s:
        raise MetricsQueryInvalid("The time asked for ends before it begins.")
    return start_s, end_s


def read_step_s(text: str | None, range_s: int) -> int | None:
    """
    Read the length of a span, in seconds; None: all of the range is one.

    Raises:
        MetricsQueryInvalid: It cannot be read, or there would be too many.
    """
    if text == "all":
        return None
    if text is None:
        return next(
            (step_s for step_s in (MINUTE_S, HOUR_S) if range_s <= 120 * step_s),
            DAY_S,
        )
    step_s = read_length_s(text)
    if step_s % MINUTE_S:
        raise MetricsQueryInvalid("A step is a number of whole minutes.")
    if range_s > step_s * _MAX_SPANS:
        raise MetricsQueryInvalid(f"More than {_MAX_SPANS} steps: ask for a longer one.")
    return step_s


def read_group_by(text: str) -> tuple[str, ...]:
    """
    Read what is told apart, in the order of DIMENSIONS.

    Raises:
        MetricsQueryInvalid: One of them is none.
    """
    wanted = {part.strip() for part in text.split(",") if part.strip()}
    if unknown := wanted - set(DIMENSIONS):
        raise MetricsQueryInvalid(f"group_by knows {', '.join(DIMENSIONS)}, not {min(unknown)!r}.")
    return tuple(dimension for dimension in DIMENSIONS if dimension in wanted)


def read_versions(texts: list[str]) -> tuple[int, ...]:
    """
    Read the numbers of versions.

    Raises:
        VersionInvalid: One of them is none.
    """
    return tuple(number for text in texts if (number := read_version(text)) is not None)


def read_status(text: str) -> int:
    """
    Read a status, 404, or a class of them, 5xx, which is its first digit.

    Raises:
        MetricsQueryInvalid: It is neither.
    """
    if len(text) == 3 and text[0] in "12345":
        if text[1:] == "xx":
            return int(text[0])
        if text.isascii() and text.isdecimal():
            return int(text)
    raise MetricsQueryInvalid("A status reads 200, 404 or 5xx.")
