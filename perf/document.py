"""
The tables of docs/performance.md, from the JSON in perf/results: `python -m perf.document` writes
them anew; a test holds the document to the files.
"""

import json
import re
from pathlib import Path
from typing import Any

from perf.bench.servers import CHECKOUT
from perf.bench.summary import Row
from perf.bench.tables import cells_of

DOCUMENT = CHECKOUT / "docs/performance.md"
RESULTS = CHECKOUT / "perf/results"
_MISSING = "Not measured yet."


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _made_on(result: dict[str, Any]) -> str:
    machine = result["machine"]
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, "
        f"Python {machine['python']}; load average before: {machine['load_average_before'][0]}. "
        f"`{machine['command']}`, {machine['began'][:10]}, {machine['commit']}."
    )


def bench(result: dict[str, Any]) -> str:
    """Write the comparison: a table for each workload, and the plot."""
    parts = [_made_on(result), "![Requests a second over clients](../perf/results/bench.svg)"]
    head = ["clients", "server", "requests/s", "min–max", "× original", "min–max"]
    head += ["p50 ms", "p99 ms", "CPU ms/request", "memory MB"]
    for workload, what in result["workloads"].items():
        rows = [Row(**row) for row in result["rows"] if row["workload"] == workload]
        parts += [f"**{workload}**: {what}", _table(head, [cells_of(row)[1:] for row in rows])]
    idle = {
        name: max(cores[name] for cores in result["idle_cores"].values())
        for name in result["peers"]
    }
    told = ", ".join(f"{name} {cores:.3f}" for name, cores in idle.items())
    return "\n\n".join([*parts, f"Cores that an idle server takes, the most of all: {told}."])


def breakdown(result: dict[str, Any]) -> str:
    """Write the stages of a request."""
    stages = ["http", "decode", "queue", "ipc", "triton", "model", "total"]
    rows = [
        [row["workload"], str(row["clients"]), *(f"{row[f'{stage}_ms']:.2f}" for stage in stages)]
        for row in result["rows"]
    ]
    return f"{_made_on(result)}\n\n{_table(['workload', 'clients', *stages], rows)}"


def soak(result: dict[str, Any]) -> str:
    """Write the first and the last sample of a soak, and its verdict."""
    samples = result["samples"]
    names = list(samples[0])
    rows = [
        [which, *(f"{sample[name]:,}".replace(",", " ") for name in names)]
        for which, sample in (("first", samples[0]), ("last", samples[-1]))
    ]
    verdict = "; ".join(result["found"]) or "Nothing grew"
    heads = ["", *(name.replace("_", " ") for name in names)]
    table = _table(heads, rows)
    return f"{_made_on(result)}\n\n{table}\n\n{verdict}; {result['errors']} requests failed."


_SECTIONS = {"bench": bench, "breakdown": breakdown, "soak": soak, "soak_faults": soak}


def render(text: str, results: Path) -> str:
    """Give the document with the tables of these results between its markers."""
    for name, write in _SECTIONS.items():
        path = results / f"{name}.json"
        table = write(json.loads(path.read_text())) if path.exists() else _MISSING
        pattern = rf"<!-- {name} -->\n.*?<!-- end -->"
        written = f"<!-- {name} -->\n{table}\n<!-- end -->".replace("\\", r"\\")
        text, found = re.subn(pattern, written, text, flags=re.DOTALL)
        assert found == 1, f"{name} has {found} places in the document"
    return text


if __name__ == "__main__":
    DOCUMENT.write_text(render(DOCUMENT.read_text(), RESULTS))
