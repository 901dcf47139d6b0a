"""`register`, `models`, `versions`, `load`, `unload`, `run`, `alias`, `delete`: for any gateway."""

import base64
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from gateway.cli.client import (
    DEFAULT_URL,
    AsJson,
    Key,
    Url,
    console,
    gateway_at,
    show_json,
)
from gateway.cli.configured import fail
from gateway.converter.errors import ConverterError
from gateway.converter.merged import in_one_file

Name = Annotated[str, typer.Argument(help="The model's name.")]
Version = Annotated[int | None, typer.Option("--version", min=1, help="One version of it.")]


def register_command(
    model: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The ONNX file.")],
    name: Annotated[str, typer.Option("--name", help="The model's name, new or not.")],
    labels: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A text file, one class name a line."),
    ] = None,
    preprocessing: Annotated[
        str | None, typer.Option(help="raw, imagenet, unit, a record as JSON, or @FILE with one.")
    ] = None,
    keep_graph: Annotated[
        bool | None,
        typer.Option(
            "--keep-graph/--no-keep-graph",
            help=(
                "Publish the graph as it is, or with a uint8 input where that is exact. Default: "
                "the latter, unless the champion takes what the graph takes."
            ),
        ),
    ] = None,
    load: Annotated[bool, typer.Option("--load", help="Load the version, too.")] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Register an ONNX model: a new one, or the next version of one."""
    fields = {}
    if labels is not None:
        fields["labels"] = labels.read_text(encoding="utf-8")
    if preprocessing is not None:
        fields["preprocessing"] = (
            Path(preprocessing[1:]).read_text(encoding="utf-8")
            if preprocessing.startswith("@")
            else preprocessing
        )
    params = {"name": name, "load": str(load).lower()}
    if keep_graph is not None:
        params["keep_graph"] = str(keep_graph).lower()
    with (
        _one_file(model) as whole,
        gateway_at(url, key) as gateway,
        _progress(as_json=as_json) as progress,
        progress.open(whole, "rb", description="Uploading and validating") as file,
    ):
        answer = gateway.call(
            "POST",
            "/api/v1/register",
            params=params,
            files={"file": ("model.onnx", file)},
            data=fields,
        )
    if as_json:
        show_json(answer)
        return
    out = console()
    out.print(f"{answer['message']}: {answer['name']} version {answer['version']}", markup=False)
    for change in answer["changes"]:
        out.print(Text(change))
    for warning in answer["warnings"]:
        out.print(Text(f"Warning: {warning}", style="yellow"))


@contextlib.contextmanager
def _one_file(model: Path) -> Iterator[Path]:
    """Bring weights that lie beside a model into one file with it."""
    with contextlib.ExitStack() as stack:
        try:
            whole = stack.enter_context(in_one_file(model))
        except ConverterError as error:
            fail(str(error))
        yield whole


def models_command(as_json: AsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List the models: versions, aliases, what is loaded where."""
    with gateway_at(url, key) as gateway:
        models = gateway.call("GET", "/api/v1/models")
    if as_json:
        show_json(models)
        return
    table = Table("MODEL", "VERSIONS", "ALIASES", "LOADED", "STATE")
    for model in models:
        table.add_row(
            Text(model["name"]),
            ", ".join(map(str, model["versions"])),
            Text(", ".join(f"{a}={v}" for a, v in sorted(model["aliases"].items()))),
            ", ".join(map(str, model["loaded"])) or "-",
            Text(_states(model)),
        )
    console().print(table)


def versions_command(
    name: Name,
    version: Annotated[
        int | None, typer.Argument(min=1, help="One version: its validation report.")
    ] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """List the versions of a model, or show one with its validation report."""
    path = f"/api/v1/models/{name}/versions"
    with gateway_at(url, key) as gateway:
        answer = gateway.call("GET", path if version is None else f"{path}/{version}")
    if as_json:
        show_json(answer)
    elif version is None:
        _show_versions(answer)
    else:
        _show_report(answer)


def load_command(
    name: Name, version: Version = None, url: Url = DEFAULT_URL, key: Key = None
) -> None:
    """Load a model's champion, or one version, and wait until it is ready."""
    with gateway_at(url, key) as gateway:
        gateway.call("POST", "/api/v1/load", params=_pin(name, version))
    console().print(f"{name} is loaded", markup=False)


def unload_command(
    name: Name, version: Version = None, url: Url = DEFAULT_URL, key: Key = None
) -> None:
    """Unload a model, or one version of it."""
    with gateway_at(url, key) as gateway:
        gateway.call("POST", "/api/v1/unload", params=_pin(name, version))
    console().print(f"{name} is unloaded", markup=False)


def run_command(
    name: Name,
    image: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The image file.")],
    version: Version = None,
    alias: Annotated[str | None, typer.Option(help="The version that an alias names.")] = None,
    top_k: Annotated[int, typer.Option("--top", min=1, max=1000, help="How many classes.")] = 5,
    softmax: Annotated[bool, typer.Option(help="Turn logits into probabilities.")] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
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
    table = Table("CATEGORY", "LABEL", "SCORE")
    for score in answer["scores"]:
        table.add_row(score["category"], Text(score["label"] or "-"), f"{score['score']:.6g}")
    console().print(table)


def alias_command(
    name: Name,
    alias: Annotated[str, typer.Argument(help="The alias: champion, challenger, or another.")],
    version: Annotated[
        int | None, typer.Argument(min=1, help="The version it is to name; none deletes it.")
    ] = None,
    url: Url = DEFAULT_URL,
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
    console().print(f"{alias} of {name} {where}", markup=False)


def delete_command(
    name: Name,
    version: Version = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Delete a version, or a model with all its versions. What an alias or a load holds stays."""
    what = name if version is None else f"version {version} of {name}"
    if not yes:
        typer.confirm(f"Delete {what} for good?", abort=True)
    path = f"/api/v1/models/{name}" + ("" if version is None else f"/versions/{version}")
    with gateway_at(url, key) as gateway:
        gateway.call("DELETE", path)
    console().print(f"{what} is deleted", markup=False)


def _progress(*, as_json: bool) -> Progress:
    """Make a progress bar on standard error; none where nobody looks."""
    return Progress(
        "{task.description}",
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=as_json or not sys.stderr.isatty(),
    )


def _pin(name: str, version: int | None) -> dict[str, Any]:
    return {"name": name} | ({} if version is None else {"version": version})


def _states(model: dict[str, Any]) -> str:
    """Sum the states of the loaded versions up over the replicas."""
    shown = []
    for number in model["loaded"]:
        states = [replica[str(number)] for replica in model["replicas"].values()]
        ready = sum(state["state"] == "READY" for state in states)
        reason = next((state["reason"] for state in states if state["reason"]), "")
        shown.append(f"{number}: {ready}/{len(states)} ready {reason}".strip())
    return "; ".join(shown)


def _show_versions(versions: list[dict[str, Any]]) -> None:
    table = Table("VERSION", "ALIASES", "LOADED", "SIZE", "CREATED", "SOURCE", "DIGEST")
    for version in versions:
        table.add_row(
            str(version["version"]),
            Text(", ".join(version["aliases"])),
            "yes" if version["loaded"] else "-",
            f"{version['size_bytes'] / 1e6:.1f} MB",
            version["created_at"][:19],
            version["source"],
            version["digest"][:19],
        )
    console().print(table)


def _show_report(version: dict[str, Any]) -> None:
    out = console()
    out.print(f"{version['name']} version {version['version']}, {version['digest']}", markup=False)
    for change in version["changes"]:
        out.print(Text(change))
    if version["changes"]:
        out.print(f"Made of {version['source_digest']}", markup=False)
    report = version["validation"]
    if report is None:
        out.print("It was not uploaded here: there is no validation report.")
        return
    out.print(f"Validated for {report['runtime']}", markup=False)
    table = Table("STAGE", "RESULT", "TOOK", "FOUND")
    for stage in report["stages"]:
        found = stage["detail"] or ", ".join(
            f"{key}={value}" for key, value in stage["facts"].items() if key != "signature"
        )
        result = "passed" if stage["ok"] else stage["code"]
        table.add_row(stage["name"], result, f"{stage['took_s']:.2f} s", Text(found))
    out.print(table)
    for warning in report["warnings"]:
        out.print(Text(f"Warning: {warning}", style="yellow"))
