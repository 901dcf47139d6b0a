"""The comparison as a table on the terminal."""

from rich.console import Console
from rich.table import Table

from perf.bench.summary import Row

_COLUMNS = (
    "workload",
    "clients",
    "server",
    "requests/s",
    "(min–max)",
    "× original",
    "(min–max)",
    "p50 ms",
    "p99 ms",
    "CPU ms/request",
    "memory MB",
)


def cells_of(row: Row) -> list[str]:
    """Write a row as words; one with errors is written as invalid."""
    head = [row.workload, str(row.concurrency), row.server]
    if row.errors:
        return [*head, f"invalid: {row.errors} errors", *[""] * (len(_COLUMNS) - 4)]
    low, high = row.rate_range
    ratio, ratio_range = "", ""
    if row.ratio is not None and row.ratio_range is not None:
        ratio = f"{row.ratio:.2f}"
        ratio_range = "{:.2f}–{:.2f}".format(*row.ratio_range)
    return [
        *head,
        f"{row.rate:.1f}",
        f"{low:.1f}–{high:.1f}",
        ratio,
        ratio_range,
        f"{row.p50_ms:.1f}",
        f"{row.p99_ms:.1f}",
        f"{row.cpu_ms:.2f}",
        f"{row.memory_bytes / 1e6:.0f}",
    ]


def print_rows(rows: list[Row]) -> None:
    """Print the table, a line under each load."""
    table = Table(title="Medians over the rounds")
    for number, column in enumerate(_COLUMNS):
        table.add_column(column, justify="left" if number in {0, 2} else "right")
    for number, row in enumerate(rows):
        following = rows[number + 1] if number + 1 < len(rows) else None
        last = following is None or (following.workload, following.concurrency) != (
            row.workload,
            row.concurrency,
        )
        table.add_row(*cells_of(row), end_section=last)
    Console(width=150).print(table)
