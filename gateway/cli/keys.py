"""`gateway keys create|list|revoke|rotate`."""

from typing import Annotated, Any

import typer
from rich.text import Text

from gateway.cli.client import AsJson, Key, Url, console, gateway_at, make_table, show_json

keys_app = typer.Typer(
    no_args_is_help=True, help="Keys: who may ask this gateway for what.", rich_markup_mode=None
)

Name = Annotated[str, typer.Argument(help="The key's name, or its id.")]


@keys_app.command("create")
def create_command(
    name: Annotated[str, typer.Argument(help="The key's name.")],
    role: Annotated[str, typer.Option("--role", help="infer, operator or admin.")],
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="A pattern of the models that exist for it, with * and ?."),
    ] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", help="When it ends: 90d, 12h, 2027-01-31.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", help="Requests per second; more get 429.")
    ] = None,
    in_flight: Annotated[
        int | None, typer.Option("--in-flight", min=1, help="Runs worked on at once; more wait.")
    ] = None,
    batch: Annotated[
        bool, typer.Option("--batch", help="Its runs wait while others have some.")
    ] = False,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """
    Make a key.

    It is printed this once and stored nowhere.
    """
    asked: dict[str, Any] = {
        "name": name,
        "role": role,
        "models": model or [],
        "expires": expires,
        "rate_per_s": rate,
        "in_flight": in_flight,
        "priority": "batch" if batch else "normal",
    }
    with gateway_at(url, key) as gateway:
        answer = gateway.call("POST", "/api/v1/keys", json=asked)
    _show_once(answer, as_json=as_json)


@keys_app.command("list")
def list_command(as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """List the keys, the revoked and expired ones too."""
    with gateway_at(url, key) as gateway:
        keys = gateway.call("GET", "/api/v1/keys")
    if as_json:
        show_json(keys)
        return
    if not keys:
        console().print("No keys. To make one: gateway keys create NAME --role infer")
        return
    table = make_table(
        "NAME", "ID", "ROLE", "MODELS", "STATE", "EXPIRES", "LIMITS", "CREATED BY", whole=("ID",)
    )
    for each in keys:
        table.add_row(
            Text(each["name"]),
            each["id"],
            each["role"],
            Text(", ".join(each["models"]) or "*"),
            each["state"],
            (each["expires_at"] or "-")[:16].replace("T", " "),
            _limits(each),
            Text(each["created_by"]),
        )
    console().print(table)


@keys_app.command("revoke")
def revoke_command(name: Name, as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """Put a key out of force, for good."""
    with gateway_at(url, key) as gateway:
        answer = gateway.call("DELETE", f"/api/v1/keys/{name}")
    if as_json:
        show_json(answer)
    else:
        console().print(Text(f"Key {answer['name']} is revoked."))


@keys_app.command("rotate")
def rotate_command(
    name: Name,
    grace_s: Annotated[
        float, typer.Option("--grace", min=0, help="How long the old one is good, in seconds.")
    ] = 86_400,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """
    Give a key another secret.

    It is printed this once; the old one is good for the grace.
    """
    with gateway_at(url, key) as gateway:
        answer = gateway.call("POST", f"/api/v1/keys/{name}/rotate", json={"grace_s": grace_s})
    _show_once(answer, as_json=as_json)


def _show_once(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(answer)
        return
    # Alone on its line, so that it can be taken by a script, too.
    out = console()
    out.print(Text(answer["key"]), soft_wrap=True)
    out.print(Text(f"Key {answer['name']} ({answer['role']}). It is not shown again.", style="dim"))


def _limits(key: dict[str, Any]) -> str:
    limits = []
    if key["rate_per_s"] is not None:
        limits.append(f"{key['rate_per_s']:g}/s")
    if key["in_flight"] is not None:
        limits.append(f"{key['in_flight']} at once")
    if key["priority"] == "batch":
        limits.append("batch")
    return ", ".join(limits) or "-"
