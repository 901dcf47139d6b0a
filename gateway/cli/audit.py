"""`gateway audit`: who changed what."""

import sys
from typing import Annotated, Any

import orjson
import typer
from rich.text import Text

from gateway.cli.client import AsJson, Key, Url, console, gateway_at, make_table

_DETAILS_LENGTH = 80


def audit_command(
    start: Annotated[str | None, typer.Option("--since", help="From this moment on.")] = None,
    end: Annotated[str | None, typer.Option("--until", help="Up to this moment.")] = None,
    actor: Annotated[str | None, typer.Option("--actor", help="Only this one's.")] = None,
    action: Annotated[str | None, typer.Option("--action", help="Only these.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Only of this model.")] = None,
    after: Annotated[int, typer.Option("--after", min=0, help="Only rows after this id.")] = 0,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="How many.")] = 1000,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """
    Show who changed what, and from where.

    With --json it is one object a line.
    """
    asked = {
        "start": start,
        "end": end,
        "actor": actor,
        "action": action,
        "model": model,
        "after": after,
        "limit": limit,
    }
    params = {name: value for name, value in asked.items() if value is not None}
    with gateway_at(url, key) as gateway:
        entries: list[dict[str, Any]] = gateway.call("GET", "/api/v1/audit", params=params)
    if as_json:
        sys.stdout.write("".join(orjson.dumps(entry).decode() + "\n" for entry in entries))
        return
    if not entries:
        console().print("Nothing was changed by such a call.")
        return
    table = make_table("ID", "AT", "WHO", "FROM", "WHAT", "OUTCOME", "MODEL", "DETAILS")
    for entry in entries:
        details = ", ".join(f"{name}={value}" for name, value in entry["details"].items())
        table.add_row(
            str(entry["id"]),
            entry["at"][:19].replace("T", " "),
            Text(entry["actor"]),
            entry["source"],
            entry["action"],
            entry["outcome"],
            Text(entry["model"]),
            Text(details[:_DETAILS_LENGTH]),
        )
    console().print(table)
