"""Adding rows of stored metrics up, by whatever they are grouped by. Pure."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from gateway.store.request_metrics import StoredMetrics
from gateway.telemetry.sketches import Latencies, merge_packed, pack

K = TypeVar("K")


@dataclass(slots=True)
class Sum:
    """The sum of some rows."""

    requests: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    categories: Counter[str] = field(default_factory=Counter)
    latencies: dict[str, Latencies] = field(default_factory=dict)

    def add(self, row: StoredMetrics) -> None:
        """Add one row."""
        self.requests += row.requests
        self.bytes_in += row.bytes_in
        self.bytes_out += row.bytes_out
        self.statuses[row.status] += row.requests
        self.errors.update(row.errors)
        self.categories.update(row.categories)
        merge_packed(row.sketches, self.latencies)


def add_up(rows: Iterable[StoredMetrics], group: Callable[[StoredMetrics], K]) -> dict[K, Sum]:
    """Add rows up by group."""
    sums: dict[K, Sum] = {}
    for row in rows:
        sums.setdefault(group(row), Sum()).add(row)
    return sums


def roll_up(rows: Iterable[StoredMetrics], resolution_s: int) -> list[StoredMetrics]:
    """Make rows of a coarser resolution: the same counts, by endpoint, model, version, status."""

    def group(row: StoredMetrics) -> tuple[int, str, str, int, int]:
        start_s = row.start_s // resolution_s * resolution_s
        return start_s, row.endpoint, row.model, row.version, row.status

    return [
        StoredMetrics(
            *key,
            requests=total.requests,
            bytes_in=total.bytes_in,
            bytes_out=total.bytes_out,
            errors=dict(total.errors),
            categories=dict(total.categories),
            sketches=pack(total.latencies),
        )
        for key, total in add_up(rows, group).items()
    ]
