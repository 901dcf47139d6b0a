"""`gateway replay` and `gateway recordings`: ask a version what was recorded."""

import time
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from gateway.cli.client import (
    AsJson,
    GatewayClient,
    Key,
    Url,
    console,
    gateway_at,
    show_json,
)
from gateway.cli.rollout_picture import coloured, metrics_table

Model = Annotated[str, typer.Argument(help="The model's name.")]

_LOOK_EVERY_S = 0.5
_EXIT_CODES = {"Failed": 4, "Inconclusive": 3}


def replay_command(
    model: Model,
    version: Annotated[int, typer.Argument(min=1, help="The candidate.")],
    images: Annotated[
        int | None, typer.Option(min=1, help="So many recorded requests, the newest.")
    ] = None,
    min_samples: Annotated[int, typer.Option(help="Fewer requests decide nothing.")] = 100,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """
    Ask a version what was recorded, and compare.

    The champion is asked the same; they are compared as by a shadow.

    Exit code 4: the version is worse than tolerated. 3: too little was recorded to tell.
    """
    body = {"version": version, "images": images, "min_samples": min_samples}
    with gateway_at(url, key) as gateway:
        begun = gateway.call("POST", f"/api/v1/models/{model}/replays", json=body)
        ended = _follow(gateway, f"/api/v1/models/{model}/replays/{begun['id']}", quiet=as_json)
    if as_json:
        show_json(ended)
    else:
        _show(ended)
    if ended["state"] == "failed":
        raise typer.Exit(1)
    outcome = ended["verdict"]["outcome"]
    if outcome in _EXIT_CODES:
        raise typer.Exit(_EXIT_CODES[outcome])


def recordings_command(
    model: Model,
    delete: Annotated[bool, typer.Option("--delete", help="Delete all of them.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Show what is recorded of a model, or delete it."""
    with gateway_at(url, key) as gateway:
        method = "DELETE" if delete else "GET"
        found = gateway.call(method, f"/api/v1/models/{model}/recordings")
    if as_json:
        show_json(found)
        return
    how = "encrypted" if found["encrypted"] else "not encrypted"
    console().print(
        f"{found['images']:,} requests, {found['labelled']:,} with their true class, "
        f"{found['size_bytes'] / 1e6:,.1f} MB; what comes is {how}."
    )


def _follow(gateway: GatewayClient, path: str, *, quiet: bool) -> dict[str, Any]:
    """Look at a replay until it has ended."""
    columns = TextColumn("asked"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=console(), disable=quiet, transient=True) as drawn:
        task = drawn.add_task("replay", total=None)
        while True:
            state: dict[str, Any] = gateway.call("GET", path)
            done = state["asked"] + state["skipped"]
            drawn.update(task, total=state["images"], completed=done)
            if state["state"] != "running":
                return state
            time.sleep(_LOOK_EVERY_S)


def _show(ended: dict[str, Any]) -> None:
    out = console()
    if ended["verdict"] is None:
        out.print(ended["error"], markup=False)
        return
    out.print(metrics_table(ended["verdict"]))
    out.print(
        Text.assemble(coloured(ended["verdict"]["outcome"]), f"  {ended['verdict']['sentence']}")
    )
    out.print(
        f"{ended['asked']:,} requests asked of versions {ended['champion']} and "
        f"{ended['version']}, {ended['labelled']:,} with their true class, "
        f"{ended['skipped']:,} could not be read."
    )
