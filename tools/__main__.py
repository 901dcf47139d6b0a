"""
The converter's command line: look at a model, see its configuration, publish it.

    python -m tools inspect MODEL.onnx
    python -m tools config  MODEL.onnx --name N
    python -m tools publish MODEL.onnx --name N --repository R

A model that is refused gives exit code 2 and one line on standard error.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.converter import model_config
from gateway.converter.errors import ConverterError, SignatureUnsupported
from gateway.converter.model_config import ConfigOptions, placement_for_machine
from gateway.converter.names import check_model_name, check_version
from gateway.converter.onnx_signature import check_classifier, read_signature
from gateway.converter.placement import Placement
from gateway.converter.plan import plan_version
from gateway.converter.publish import next_version, publish_version
from gateway.converter.published import newest_input
from gateway.converter.signature import ModelSignature
from gateway.converter.uint8_input import InputPolicy

REFUSED = 2

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

Model = Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The model file.")]
Name = Annotated[str, typer.Option(help="The model's name.")]
Labels = Annotated[
    Path | None, typer.Option(help="A text file with one class name a line, in order.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object, for scripts.")]
Instances = Annotated[
    int, typer.Option(min=0, help="Instances of the model; 0: chosen from this machine's cores.")
]
Threads = Annotated[
    int, typer.Option(min=0, help="Threads in each instance; 0: chosen from this machine's cores.")
]
MaxBatch = Annotated[int, typer.Option(min=0, help="Largest batch; 0: never batch.")]
KeepGraph = Annotated[
    bool | None,
    typer.Option(
        "--keep-graph/--no-keep-graph",
        help=(
            "Keep the graph as it is, or put a Cast from UINT8 in front of it where that is exact. "
            "Default: the Cast, unless the model's newest version takes what the graph takes."
        ),
    ),
]


@app.callback()
def tools() -> None:
    """Turn ONNX image classifiers into entries of a Triton model repository."""


@app.command()
def inspect(model: Model, *, as_json: AsJson = False) -> None:
    """Show what a model takes and answers."""
    with _refusals(model, as_json=as_json):
        signature = read_signature(model)
        refusal = _refusal(signature)
    if as_json:
        _print_json(
            {
                **signature.to_json(),
                "classes": signature.classes,
                "batchable": signature.batchable,
                "classifier": refusal is None,
            }
        )
        return
    for kind, tensors in (("input", signature.inputs), ("output", signature.outputs)):
        for tensor in tensors:
            typer.echo(f"{kind:<12}{tensor}")
    typer.echo(f"{'classes':<12}{signature.classes or 'not known before a run'}")
    typer.echo(f"{'batches':<12}{'yes' if signature.batchable else 'no'}")
    opsets = ", ".join(f"{domain} {version}" for domain, version in signature.opsets.items())
    typer.echo(f"{'IR':<12}{signature.ir_version}; opsets: {opsets}")
    typer.echo(f"{'classifier':<12}{refusal or 'yes'}")


@app.command()
def config(
    model: Model,
    *,
    name: Name,
    version: Annotated[int, typer.Option(help="The version to serve.")] = 1,
    labels: Labels = None,
    instances: Instances = 0,
    threads: Threads = 0,
    max_batch_size: MaxBatch = 8,
    keep_graph: KeepGraph = None,
    as_json: AsJson = False,
) -> None:
    """Print the config.pbtxt for a model. Writes nothing."""
    with _refusals(model, as_json=as_json):
        policy = InputPolicy(keep_graph=keep_graph)
        options = _options(instances, threads, max_batch_size)
        text = _planned(model, name, version, labels, options, policy)
    _print_config(text, as_json=as_json)


@app.command()
def publish(
    model: Model,
    *,
    name: Name,
    repository: Annotated[Path, typer.Option(help="The model repository; made if need be.")],
    version: Annotated[
        int | None, typer.Option(help="The version's number; the next one if it is left out.")
    ] = None,
    labels: Labels = None,
    instances: Instances = 0,
    threads: Threads = 0,
    max_batch_size: MaxBatch = 8,
    keep_graph: KeepGraph = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the config.pbtxt and write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put a model into a repository as a new version."""
    options = _options(instances, threads, max_batch_size)
    with _refusals(model, as_json=as_json):
        check_model_name(name)
        number = next_version(repository, name) if version is None else check_version(version)
        policy = InputPolicy(keep_graph=keep_graph, beside=newest_input(repository, name))
        if dry_run:
            planned = _planned(model, name, number, labels, options, policy)
            _print_config(planned, as_json=as_json)
            return
        published = publish_version(
            model,
            repository=repository,
            name=name,
            version=number,
            options=options,
            policy=policy,
            labels=_read_labels(labels),
            check=check_classifier,
        )
    if as_json:
        _print_json(
            {
                "name": published.name,
                "version": published.version,
                "digest": published.digest,
                "source_digest": published.source_digest,
                "size_bytes": published.size_bytes,
                "signature": published.signature.to_json(),
                "changes": list(published.changes),
            }
        )
    else:
        typer.echo(f"Published {name} version {number} ({published.digest})")
        for change in published.changes:
            typer.echo(_printable(change))


def main() -> None:
    """Run the command line."""
    app(prog_name="python -m tools")


def _planned(
    model: Path,
    name: str,
    version: int,
    labels: Path | None,
    options: ConfigOptions,
    policy: InputPolicy,
) -> str:
    plan = plan_version(
        model,
        name=check_model_name(name),
        version=check_version(version),
        options=options,
        policy=policy,
        labels=_read_labels(labels),
    )
    check_classifier(plan.signature)
    return model_config.render(plan.config)


def _options(instances: int, threads: int, max_batch_size: int) -> ConfigOptions:
    chosen = placement_for_machine()
    placement = Placement(
        instances or chosen.instances, threads or chosen.intra_op_threads, chosen.latency_threads
    )
    return ConfigOptions(placement=placement, max_batch_size=max_batch_size)


def _read_labels(path: Path | None) -> list[str] | None:
    if path is None:
        return None
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def _refusal(signature: ModelSignature) -> str | None:
    try:
        check_classifier(signature)
    except SignatureUnsupported as error:
        return str(error)
    return None


@contextmanager
def _refusals(model: Path, *, as_json: bool) -> Iterator[None]:
    """End with exit code 2 and one line, whatever is wrong with the model or the files."""
    try:
        yield
    except (ConverterError, OSError, UnicodeDecodeError) as error:
        code = error.code if isinstance(error, ConverterError) else "file_unreadable"
        if as_json:
            _print_json({"code": code, "detail": str(error)})
        typer.echo(_printable(f"{model}: {error}"), err=True)
        sys.exit(REFUSED)


def _printable(text: str) -> str:
    """Escape control characters: a model may name its tensors as it likes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _print_config(text: str, *, as_json: bool) -> None:
    if as_json:
        typer.echo(model_config.to_json(model_config.parse(text)))
    else:
        typer.echo(text, nl=False)


def _print_json(value: dict[str, Any]) -> None:
    typer.echo(json.dumps(value))


if __name__ == "__main__":
    main()
