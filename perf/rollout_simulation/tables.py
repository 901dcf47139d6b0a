"""The results as Markdown tables, and their place in a document."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perf.rollout_simulation.planning import COLUMNS


def percent(share: float) -> str:
    """A share for people."""
    return f"{share * 100:.1f} %"


def sample_size_table(rows: Sequence[dict[str, Any]]) -> str:
    """Requests until each decision, by strategy and weight."""
    columns = [f"{strategy} {weight * 100:g} %" for strategy, weight in COLUMNS]
    sizes = [
        "| truth | metric | decision | " + " | ".join(columns) + " |",
        "|---|---|---|" + "--:|" * 4,
    ]
    for row in rows:
        cells = [f"{row[column]:,}" if column in row else "–" for column in columns]
        sizes.append(
            f"| {row['truth']} | {row['metric']} | {row['outcome']} | {' | '.join(cells)} |"
        )
    return "\n".join(sizes)


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Markdown tables by the name of their marker, of what was simulated."""
    made = {
        "rollouts": ("rollouts", rollout_table),
        "held_for_a_day": ("held", held_table),
        "callers": ("callers", callers_table),
        "flagger": ("flagger", flagger_table),
        "sample_sizes": ("sample-sizes", sample_size_table),
    }
    return {marker: make(result[name]) for name, (marker, make) in made.items() if name in result}


def rollout_table(rows: Sequence[dict[str, Any]]) -> str:
    """How rollouts end, after how many requests, and how many of them the challenger answered."""
    head = (
        "| challenger | strategy | promoted | rolled back | open at the end "
        "| requests until then, median (p95) | of them answered by the challenger "
        "| a test of fixed size |"
    )
    lines = [head, "|---|---|--:|--:|--:|--:|--:|--:|"]
    for row in rows:
        failed = row["rolled back"]["share"] > row["promoted"]["share"]
        end = row["rolled back" if failed else "promoted"]
        until, exposed, fixed = "–", "–", "–"
        if end["share"]:
            until = f"{end['requests_median']:,.0f} ({end['requests_p95']:,.0f})"
            exposed = f"{end['exposed_requests_median']:,.0f}"
        if failed and row["fixed_size"] and row["strategy"].startswith("shadow"):
            ratio = end["requests_median"] / row["fixed_size"]
            fixed = f"{row['fixed_size']:,.0f} (× {ratio:.1f})"
        ends = (row["promoted"]["share"], row["rolled back"]["share"], row["undecided"])
        three = [percent(share) for share in ends]
        if row["held by likeness"] > 0.005:
            three[2] += f" (held: {percent(row['held by likeness'])})"
        cells = [row["world"], row["strategy"], *three, until, exposed, fixed]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def held_table(rows: Sequence[dict[str, Any]]) -> str:
    """How often a rollout that nobody lets go on is rolled back within a day."""
    lines = ["| challenger | held in | looks | rolled back |", "|---|---|--:|--:|"]
    for row in rows:
        place = "shadow 100 %" if "shadow" in row["strategy"] else "canary 50 %"
        share = f"{row['rolled back']['share'] * 100:.2f} %"
        lines.append(f"| {row['world']} | {place} | {row['looks']:,} | {share} |")
    return "\n".join(lines)


def callers_table(rows: Sequence[dict[str, Any]]) -> str:
    """A/A rollouts with few callers that stay on their side."""
    lines = [
        "| callers | counted | rolled back | could be promoted |",
        "|--:|---|--:|--:|",
    ]
    for row in rows:
        counted = "each request" if row["each request counts"] else "each caller once"
        shares = f"{percent(row['rolled back'])} | {percent(row['promoted'])}"
        lines.append(f"| {row['callers']:,} | {counted} | {shares} |")
    return "\n".join(lines)


def flagger_table(rows: Sequence[dict[str, Any]]) -> str:
    """What plain thresholds do."""
    lines = [
        "| challenger | thresholds | failed checks allowed | promoted | rolled back |",
        "|---|---|--:|--:|--:|",
    ]
    for row in rows:
        world = row["world"] + (", 1,440 iterations at 50 %" if row["held"] else "")
        lines.append(
            f"| {world} | {row['variant']} | {row['threshold'] - 1} | {percent(row['promoted'])} | "
            f"{percent(row['rolled back'])} |"
        )
    return "\n".join(lines)


def write_into(document: Path, parts: dict[str, str]) -> None:
    """Replace what stands between `<!-- NAME -->` and `<!-- /NAME -->`."""
    text = document.read_text(encoding="utf-8")
    for name, table in parts.items():
        head, _, rest = text.partition(f"<!-- {name} -->")
        _, found, tail = rest.partition(f"<!-- /{name} -->")
        if not found:
            raise SystemExit(f"{document} has no markers for {name}.")
        text = f"{head}<!-- {name} -->\n{table}\n{found}{tail}"
    document.write_text(text, encoding="utf-8")
