"""`gateway metrics`: the stored metrics as tables and sparklines, and two versions side by side."""

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.table import Table

from gateway.cli.client import AsJson, Key, Url, console, gateway_at, make_table, show_json

Last = Annotated[str, typer.Option("--last", help="So long before now: 30m, 1h, 7d.")]
_BARS = "▁▂▃▄▅▆▇█"
_SPARKS = 40
_WIDE = 120

metrics_app = typer.Typer(
    invoke_without_command=True, help="Show the stored metrics.", rich_markup_mode=None
)


@metrics_app.callback()
def metrics_command(
    context: typer.Context,
    url: Url = None,
    key: Key = None,
    last: Last = "1h",
    model: Annotated[list[str] | None, typer.Option("--model", help="Only this model.")] = None,
    endpoint: Annotated[list[str] | None, typer.Option("--endpoint", help="Only this one.")] = None,
    by: Annotated[str, typer.Option("--by", help="What is told apart.")] = "endpoint,model,version",
    form: Annotated[str, typer.Option("--format", help="table, json, csv or parquet.")] = "table",
    as_json: AsJson = False,
) -> None:
    """Show requests, errors and durations."""
    if context.invoked_subcommand is not None:
        return
    asked: dict[str, Any] = {
        "last": last,
        "group_by": by,
        "model": model or [],
        "endpoint": endpoint or [],
    }
    if as_json:
        form = "json"
    if form not in {"table", "json", "csv", "parquet"}:
        raise typer.BadParameter(
            f"table, json, csv or parquet, not {form!r}", param_hint="--format"
        )
    with gateway_at(url, key) as gateway:
        if form in {"csv", "parquet"}:
            raw = gateway.read("GET", "/api/v1/metrics", params={**asked, "format": form})
            sys.stdout.buffer.write(raw)
            return
        total = gateway.call("GET", "/api/v1/metrics", params={**asked, "step": "all"})
        if form == "json":
            show_json(total)
            return
        course = gateway.call("GET", "/api/v1/metrics", params=asked)
    if not total["rows"]:
        console().print(f"No requests in the last {last}.", markup=False)
    if total["rows"]:
        out = console()
        out.print(requests_table(total, course, narrow=out.width < _WIDE))
    for gap in total["gaps"]:
        console().print(missing(gap))


@metrics_app.command("compare")
def compare_command(
    model: Annotated[str, typer.Argument(help="The model.")],
    first: Annotated[int, typer.Argument(help="A version.")],
    second: Annotated[int, typer.Argument(help="Another version.")],
    url: Url = None,
    key: Key = None,
    last: Last = "7d",
    as_json: AsJson = False,
) -> None:
    """Show two versions of a model side by side."""
    asked: dict[str, Any] = {
        "last": last,
        "step": "all",
        "endpoint": "run",
        "model": model,
        "version": [first, second],
        "group_by": "version",
    }
    with gateway_at(url, key) as gateway:
        answer = gateway.call("GET", "/api/v1/metrics", params=asked)
    if as_json:
        show_json(answer)
        return
    by_version = {row["version"]: row for row in answer["rows"]}
    left, right = by_version.get(first, {}), by_version.get(second, {})
    table = make_table(model, f"VERSION {first}", f"VERSION {second}", "SECOND / FIRST")
    for name, shown in (("requests", str), ("error_share", "{:.2%}".format)):
        table.add_row(name, *(shown(row[name]) if row else "none" for row in (left, right)), "")
    stages = ("", "queue_", "decode_", "infer_")
    for name in (f"{stage}{value}" for stage in stages for value in ("p50", "p90", "p99", "mean")):
        one, other = left.get(f"{name}_s"), right.get(f"{name}_s")
        ratio = f"{other / one:.2f}" if one and other else ""
        table.add_row(name.replace("_", " "), milliseconds(one), milliseconds(other), ratio)
    console().print(table)


def requests_table(total: dict[str, Any], course: dict[str, Any], *, narrow: bool) -> Table:
    """
    Draw requests, errors and durations by group.

    Args:
        total, course: The answers over the whole time and by its steps.
        narrow: Leave out what a terminal of 80 columns has no place for; `--json` has it.
    """
    columns = total["group_by"]
    groups = tuple(column.upper() for column in columns)
    durations = ("p50", "p99") if narrow else ("p50", "p90", "p99", "mean")
    numbers = ("REQUESTS", "ERRORS", *(name.upper() for name in durations))
    table = make_table(
        *groups,
        *numbers,
        *(() if narrow else ("REQUESTS OVER TIME",)),
        whole=(*(group for group in groups if group != "MODEL"), *numbers),
        right=numbers,
    )
    for row in total["rows"]:
        group = [row.get(column) for column in columns]
        counts = {
            other["start"]: other["requests"]
            for other in course["rows"]
            if [other.get(column) for column in columns] == group
        }
        starts = sorted({other["start"] for other in course["rows"]})[-_SPARKS:]
        bars = sparkline([counts.get(start, 0) for start in starts])
        table.add_row(
            *("" if value is None else str(value) for value in group),
            str(row["requests"]),
            f"{row['error_share']:.1%}" if row["errors"] else "",
            *(milliseconds(row[f"{name}_s"]) for name in durations),
            *(() if narrow else (bars,)),
        )
    return table


def missing(gap: dict[str, Any]) -> str:
    """Say what is not in the table, in a sentence."""
    if gap["end"] is None:
        return f"A gateway has stored nothing since {gap['start']}: its counts are missing so far."
    return (
        f"A gateway was killed at {gap['end']}: what it counted in the {gap['at_most_s']:.1f} s "
        "before is missing."
    )


def sparkline(values: Sequence[float]) -> str:
    """Draw values as bars from zero to the largest."""
    largest = max(values, default=0)
    if not largest:
        return ""
    return "".join(_BARS[round(value / largest * (len(_BARS) - 1))] for value in values)


def milliseconds(duration_s: float | None) -> str:
    """Write a duration for people."""
    return "" if duration_s is None else f"{duration_s * 1000:.1f} ms"
