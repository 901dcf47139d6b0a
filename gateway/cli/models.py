"""`models`, `versions`, `load`, `unload`, `run`, `alias`, `delete`: for any gateway."""

import base64
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from gateway.cli.client import (
    AsJson,
    Key,
    Url,
    console,
    gateway_at,
    make_table,
    show_json,
)
from gateway.cli.model_tables import show_report, show_versions, states

Name = Annotated[str, typer.Argument(help="The model's name.")]
Version = Annotated[int | None, typer.Option("--version", min=1, help="One version of it.")]


def models_command(as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """List the models."""
    with gateway_at(url, key) as gateway:
        models = gateway.call("GET", "/api/v1/models")
    if as_json:
        show_json(models)
        return
    if not models:
        console().print("No models. To add one: gateway register MODEL.onnx --name NAME")
        return
    table = make_table("MODEL", "VERSIONS", "ALIASES", "LOADED", "STATE", whole=("MODEL",))
    for model in models:
        table.add_row(
            Text(model["name"]),
            ", ".join(map(str, model["versions"])),
            Text(", ".join(f"{a}={v}" for a, v in sorted(model["aliases"].items()))),
            ", ".join(map(str, model["loaded"])) or "-",
            Text(states(model)),
        )
    console().print(table)


def versions_command(
    name: Name,
    version: Annotated[
        int | None, typer.Argument(min=1, help="One version: its validation report.")
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """List a model's versions, or show one with its report."""
    path = f"/api/v1/models/{name}/versions"
    with gateway_at(url, key) as gateway:
        answer = gateway.call("GET", path if version is None else f"{path}/{version}")
    if as_json:
        show_json(answer)
    elif version is None:
        show_versions(answer)
    else:
        show_report(answer)


def load_command(
    name: Name,
    version: Version = None,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Load a model, and wait until it is ready."""
    with gateway_at(url, key) as gateway:
        gateway.call("POST", "/api/v1/load", params=_pin(name, version))
    _tell(
        {"name": name, "version": version, "loaded": True},
        _what(name, version) + " is loaded",
        as_json,
    )


def unload_command(
    name: Name,
    version: Version = None,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Unload a model, or one version of it."""
    with gateway_at(url, key) as gateway:
        gateway.call("POST", "/api/v1/unload", params=_pin(name, version))
    _tell(
        {"name": name, "version": version, "loaded": False},
        _what(name, version) + " is unloaded",
        as_json,
    )


def run_command(
    name: Name,
    image: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The image file.")],
    version: Version = None,
    alias: Annotated[str | None, typer.Option(help="The version that an alias names.")] = None,
    top_k: Annotated[int, typer.Option("--top", min=1, max=1000, help="How many classes.")] = 5,
    softmax: Annotated[bool, typer.Option(help="Turn logits into probabilities.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Classify an image."""
    params: dict[str, Any] = {"top_k": top_k, "softmax": str(softmax).lower()}
    params |= {"version": version} if version is not None else {}
    params |= {"alias": alias} if alias is not None else {}
    body = {"image": base64.b64encode(image.read_bytes()).decode()}
    with gateway_at(url, key) as gateway:
        answer = gateway.call("POST", f"/api/v1/run/{name}", params=params, json=body)
    if as_json:
        show_json(answer)
        return
    table = make_table("CATEGORY", "LABEL", "SCORE", right=("SCORE",))
    for score in answer["scores"]:
        table.add_row(score["category"], Text(score["label"] or "-"), f"{score['score']:.6g}")
    console().print(table)


def alias_command(
    name: Name,
    alias: Annotated[str, typer.Argument(help="The alias: champion, challenger, or another.")],
    version: Annotated[
        int | None, typer.Argument(min=1, help="The version it is to name; none deletes it.")
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Move an alias to a version, or delete it."""
    path = f"/api/v1/models/{name}/aliases/{alias}"
    with gateway_at(url, key) as gateway:
        if version is None:
            gateway.call("DELETE", path)
        else:
            gateway.call("PUT", path, json={"version": version})
    where = "is deleted" if version is None else f"names version {version}"
    _tell({"name": name, "alias": alias, "version": version}, f"{alias} of {name} {where}", as_json)


def delete_command(
    name: Name,
    version: Version = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """
    Delete a version, or a whole model.

    What an alias, a load or a rollout holds is not deleted.
    """
    what = _what(name, version)
    if not yes:
        typer.confirm(f"Delete {what} for good?", abort=True)
    path = f"/api/v1/models/{name}" + ("" if version is None else f"/versions/{version}")
    with gateway_at(url, key) as gateway:
        gateway.call("DELETE", path)
    _tell({"name": name, "version": version, "deleted": True}, f"{what} is deleted", as_json)


def _what(name: str, version: int | None) -> str:
    return name if version is None else f"version {version} of {name}"


def _tell(done: dict[str, Any], sentence: str, as_json: bool) -> None:
    if as_json:
        show_json(done)
    else:
        console().print(sentence, markup=False)


def _pin(name: str, version: int | None) -> dict[str, Any]:
    return {"name": name} | ({} if version is None else {"version": version})
