"""From cells to a table: medians over the rounds, and ratios to the original within each round."""

import statistics
from dataclasses import dataclass

BASELINE = "original"


@dataclass(frozen=True)
class Cell:
    """One server under one load in one round. Any error makes it invalid."""

    workload: str
    concurrency: int
    server: str
    round: int
    requests: int
    rate: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    memory_bytes: int
    other_cores: float
    errors: int


@dataclass(frozen=True)
class Row:
    """
    The rounds of one server under one load: medians, and the rate's range. `ratio` is the median of
    rate / original's rate in the same round, with its range; None without a baseline. `errors` are
    those of all rounds: when there are any, the figures mean nothing.
    """

    workload: str
    concurrency: int
    server: str
    rounds: int
    rate: float
    rate_range: tuple[float, float]
    ratio: float | None
    ratio_range: tuple[float, float] | None
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    memory_bytes: int
    errors: int


def summarise(cells: list[Cell]) -> list[Row]:
    """Give one row for each workload, concurrency and server, in the order of their first cells."""
    groups: dict[tuple[str, int, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.workload, cell.concurrency, cell.server), []).append(cell)
    order = list(dict.fromkeys(cell.workload for cell in cells))
    servers = list(dict.fromkeys(cell.server for cell in cells))
    keys = sorted(groups, key=lambda k: (order.index(k[0]), k[1], servers.index(k[2])))
    return [_row(groups[key], groups.get((*key[:2], BASELINE), [])) for key in keys]


def _row(cells: list[Cell], baseline: list[Cell]) -> Row:
    rates = [cell.rate for cell in cells]
    of_round = {cell.round: cell.rate for cell in baseline}
    ratios = [c.rate / of_round[c.round] for c in cells if of_round.get(c.round, 0.0) > 0]
    first = cells[0]
    return Row(
        workload=first.workload,
        concurrency=first.concurrency,
        server=first.server,
        rounds=len(cells),
        rate=statistics.median(rates),
        rate_range=(min(rates), max(rates)),
        ratio=statistics.median(ratios) if ratios else None,
        ratio_range=(min(ratios), max(ratios)) if ratios else None,
        p50_ms=statistics.median(cell.p50_ms for cell in cells),
        p99_ms=statistics.median(cell.p99_ms for cell in cells),
        cpu_ms=statistics.median(cell.cpu_ms for cell in cells),
        memory_bytes=int(statistics.median(cell.memory_bytes for cell in cells)),
        errors=sum(cell.errors for cell in cells),
    )
