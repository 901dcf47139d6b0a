"""A rollout as `gateway rollout watch` draws it."""

from typing import Any

from rich.console import Group
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gateway.cli.client import make_table

_COLOURS = {
    "Successful": "green",
    "Succeeded": "green",
    "Failed": "red",
    "Waiting": "yellow",
}
_TIMES = {"latency", "compute"}


def picture(state: dict[str, Any]) -> Group:
    """Draw its phase, its share, its last verdict and its forecast."""
    paused = " (paused)" if state["paused"] else ""
    share = "mirrored" if state["strategy"] == "shadow" else "weight"
    value = state["mirror_share"] if share == "mirrored" else state["weight"]
    head = Text.assemble(
        (f"{state['model']}  {state['champion']} → {state['challenger']}  ", "bold"),
        coloured(state["phase"]),
        f"{paused}  {state['strategy']} step {state['step'] + 1}  {share} {value:g} %",
    )
    verdict = state["verdicts"][-1] if state["verdicts"] else None
    last = verdict["sentence"] if verdict else "No check yet."
    dropped = state["shadow_dropped"]
    return Group(
        head,
        # A bar alone ends no line.
        Padding(ProgressBar(total=100, completed=value, width=60), (0, 0, 1, 0)),
        metrics_table(verdict),
        Text(last),
        Text(state["reason"], style="dim"),
        Text(_forecast(state), style="yellow" if state["notice"] else "dim"),
        *(Text(warning, style="yellow") for warning in state["warnings"]),
        Text(f"{dropped:,} copies dropped" if dropped else ""),
    )


def metrics_table(verdict: dict[str, Any] | None) -> Table:
    """Draw what a check says of each metric."""
    table = make_table("METRIC", "CHAMPION", "CHALLENGER", "TOLERATED", "SAMPLES", "VERDICT")
    for metric in verdict["metrics"] if verdict else []:
        table.add_row(
            metric["metric"],
            _measured(metric["metric"], metric["champion"]),
            _measured(metric["metric"], metric["challenger"]),
            _tolerated(metric["metric"], metric["tolerated"]),
            f"{metric['challenger_samples']:,}",
            coloured(metric["outcome"]),
        )
    return table


def _forecast(state: dict[str, Any]) -> str:
    """Tell when the step is due to be decided, or why that would be too late."""
    if state["notice"]:
        return str(state["notice"])
    return f"Due about {state['due_at'][:16]} UTC." if state["due_at"] else ""


def _measured(metric: str, value: float | None) -> str:
    """Write a value with its unit: times come in seconds, everything else as a share."""
    if value is None:
        return "–"
    return f"{value * 1000:.4g} ms" if metric in _TIMES else f"{value:.4g}"


def _tolerated(metric: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:+.0%}" if metric in _TIMES else f"{value:.4g}"


def coloured(word: str) -> Text:
    """Colour an outcome or a phase."""
    return Text(word, style=_COLOURS.get(word, "default"))
