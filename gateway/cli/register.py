"""`gateway register`: a file, and what lies beside it, to any gateway."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn
from rich.text import Text

from gateway.cli.client import AsJson, Key, Url, console, gateway_at, show_json
from gateway.cli.configured import fail
from gateway.cli.model_tables import show_proposal
from gateway.cli.sidecars import sidecars_of
from gateway.converter.errors import ConverterError
from gateway.converter.merged import in_one_file
from gateway.converter.outputs import with_output_first


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
    accept: Annotated[
        bool,
        typer.Option(
            "--accept",
            help=(
                "Take what is proposed: by the file's metadata, or by preprocessor_config.json and "
                "config.json beside it."
            ),
        ),
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(help="The output that holds the scores; it is put first. Default: the first."),
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
    url: Url = None,
    key: Key = None,
) -> None:
    """Register a model, or the next version of one."""
    fields = {}
    if labels is not None:
        fields["labels"] = labels.read_text(encoding="utf-8")
    if preprocessing is not None:
        fields["preprocessing"] = (
            Path(preprocessing[1:]).read_text(encoding="utf-8")
            if preprocessing.startswith("@")
            else preprocessing
        )
    if accept:
        if preprocessing is not None:
            raise typer.BadParameter("--accept and --preprocessing exclude each other.")
        fields["preprocessing"] = "proposed"
    params = {"name": name, "load": str(load).lower()}
    if keep_graph is not None:
        params["keep_graph"] = str(keep_graph).lower()
    with (
        _one_file(model, output) as whole,
        gateway_at(url, key) as gateway,
        _progress(as_json=as_json) as progress,
        progress.open(whole, "rb", description="Uploading and validating") as file,
    ):
        answer = gateway.call(
            "POST",
            "/api/v1/register",
            params=params,
            files=[("file", ("model.onnx", file)), *sidecars_of(model)],
            data=fields,
        )
    if as_json:
        show_json(answer)
        return
    out = console()
    out.print(f"{answer['message']}: {answer['name']} version {answer['version']}", markup=False)
    for change in answer["changes"]:
        out.print(Text(change))
    if answer["proposal"] is not None:
        show_proposal(answer["proposal"], taken=accept)
    for warning in answer["warnings"]:
        out.print(Text(f"Warning: {warning}", style="yellow"))
    out.print(f"Next: {_next_step(answer, loaded=load)}", markup=False, soft_wrap=True)


@contextlib.contextmanager
def _one_file(model: Path, output: str | None) -> Iterator[Path]:
    """Bring weights that lie beside a model into one file with it, and its scores to the front."""
    with contextlib.ExitStack() as stack:
        try:
            whole = stack.enter_context(in_one_file(model))
            if output is not None:
                whole = stack.enter_context(with_output_first(whole, output))
        except ConverterError as error:
            fail(str(error))
        yield whole


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


def _next_step(registered: dict[str, Any], *, loaded: bool) -> str:
    """Say what to type now that a version is registered."""
    name, version = registered["name"], registered["version"]
    if version > 1:
        return f"gateway rollout create {name} {version}"
    return f"gateway run {name} IMAGE" if loaded else f"gateway load {name}"
