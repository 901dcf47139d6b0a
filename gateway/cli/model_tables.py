"""How models, versions and validation reports look on a terminal."""

from typing import Any

import orjson
from rich.text import Text

from gateway.cli.client import console, make_table


def states(model: dict[str, Any]) -> str:
    """Sum the states of the loaded versions up over the replicas."""
    shown = []
    for number in model["loaded"]:
        states = [replica[str(number)] for replica in model["replicas"].values()]
        ready = sum(state["state"] == "READY" for state in states)
        reason = next((state["reason"] for state in states if state["reason"]), "")
        shown.append(f"{number}: {ready}/{len(states)} ready {reason}".strip())
    return "; ".join(shown)


def show_versions(versions: list[dict[str, Any]]) -> None:
    """Print a model's versions, a row each."""
    # Twelve digits tell versions apart; the whole digest stands where one version is shown.
    table = make_table(
        "VERSION", "ALIASES", "LOADED", "SIZE", "CREATED", "SOURCE", "DIGEST", right=("SIZE",)
    )
    for version in versions:
        table.add_row(
            str(version["version"]),
            Text(", ".join(version["aliases"])),
            "yes" if version["loaded"] else "-",
            f"{version['size_bytes'] / 1e6:.1f} MB",
            version["created_at"][:16].replace("T", " "),
            version["source"],
            version["digest"].removeprefix("sha256:")[:12],
        )
    console().print(table)


def show_proposal(proposal: dict[str, Any], *, taken: bool) -> None:
    """Print what a file, or what lies beside it, says of its preprocessing and its classes."""
    out = console()
    out.print("Taken as proposed:" if taken else "Proposed (--accept takes it):")
    for source in proposal["sources"]:
        out.print(f"  {source}", markup=False)
    if proposal["preprocessing"] is not None:
        record = orjson.dumps(proposal["preprocessing"]).decode()
        out.print(f"  {record}", markup=False, soft_wrap=True)
    if proposal["labels"]:
        first, *others = proposal["labels"]
        out.print(
            Text(f"  {len(proposal['labels'])} classes: {first}, … {(others or [first])[-1]}")
        )


def show_report(version: dict[str, Any]) -> None:
    """Print one version: its digests, what the converter changed, what validation found out."""
    out = console()
    out.print(f"{version['name']} version {version['version']}", markup=False)
    out.print(version["digest"], markup=False, soft_wrap=True)
    for change in version["changes"]:
        out.print(Text(change))
    if version["changes"]:
        out.print(f"Made of {version['source_digest']}", markup=False, soft_wrap=True)
    report = version["validation"]
    if report is None:
        out.print("It was not uploaded here: there is no validation report.")
        return
    out.print(f"Validated for {report['runtime']}", markup=False)
    table = make_table("STAGE", "RESULT", "TOOK", "FOUND")
    for stage in report["stages"]:
        found = stage["detail"] or ", ".join(
            f"{key}={value}" for key, value in stage["facts"].items() if key != "signature"
        )
        result = "passed" if stage["ok"] else stage["code"]
        table.add_row(stage["name"], result, f"{stage['took_s']:.2f} s", Text(found))
    out.print(table)
    for warning in report["warnings"]:
        out.print(Text(f"Warning: {warning}", style="yellow"))
