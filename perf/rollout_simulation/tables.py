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
    """Markdown tables by the name of their marker."""
    head = (
        "| challenger | strategy | promoted | rolled back | open at the end "
        "| requests until then, median (p95) | of them answered by the challenger |"
    )
    rollouts = [head, "|---|---|--:|--:|--:|--:|--:|"]
    for row in result["rollouts"]:
        name = (
            "rolled back" if row["rolled back"]["share"] > row["promoted"]["share"] else "promoted"
        )
        end = row[name]
        until = (
            f"{end['requests_median']:,.0f} ({end['requests_p95']:,.0f})" if end["share"] else "–"
        )
        exposed = f"{end['exposed_requests_median']:,.0f}" if end["share"] else "–"
        ends = (row["promoted"]["share"], row["rolled back"]["share"], row["undecided"])
        three = [percent(share) for share in ends]
        if row["held by likeness"] > 0.005:
            three[2] += f" (held: {percent(row['held by likeness'])})"
        cells = [row["world"], row["strategy"], *three, until, exposed]
        rollouts.append(f"| {' | '.join(cells)} |")
    held = ["| challenger | held in | checks | rolled back |", "|---|---|--:|--:|"]
    for row in result["held_for_a_day"]:
        place = "shadow 100 %" if "shadow" in row["strategy"] else "canary 50 %"
        held.append(
            f"| {row['world']} | {place} | 8,640 | {row['rolled back']['share'] * 100:.2f} % |"
        )
    plain = [
        "| challenger | thresholds | failed checks allowed | promoted | rolled back |",
        "|---|---|--:|--:|--:|",
    ]
    for row in result["flagger"]:
        world = row["world"] + (", 1,440 iterations at 50 %" if row["held"] else "")
        plain.append(
            f"| {world} | {row['variant']} | {row['threshold'] - 1} | {percent(row['promoted'])} | "
            f"{percent(row['rolled back'])} |"
        )
    callers = [
        "| callers | counted | rolled back | could be promoted |",
        "|--:|---|--:|--:|",
    ]
    for row in result["callers"]:
        counted = "each request" if row["each request counts"] else "each caller once"
        shares = f"{percent(row['rolled back'])} | {percent(row['promoted'])}"
        callers.append(f"| {row['callers']:,} | {counted} | {shares} |")
    named = {"rollouts": rollouts, "held": held, "callers": callers, "flagger": plain}
    sizes = {"sample-sizes": sample_size_table(result["sample_sizes"])}
    return sizes | {name: "\n".join(lines) for name, lines in named.items()}


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
