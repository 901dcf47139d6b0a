"""
The command line. Each module beside this one holds the commands of one subject.

    audit.py     audit
    client.py    how the others reach a gateway
    keys.py      keys create, list, revoke, rotate
    register.py  register
    models.py    models, versions, load, unload, run, alias, delete; their tables in
                 model_tables.py
    metrics.py   metrics, metrics compare
    optimize.py  optimize
    replay.py    replay, recordings
    rollouts.py  rollout create, list, watch, promote, rollback, pause, resume, history, samples;
                 rollout plan in rollout_plan.py
    serving.py   serve, doctor, settings
    tuning.py    tune
    setup_triton.py  setup-triton
"""

import os
from pathlib import Path
from typing import Annotated

import typer

from gateway import __version__
from gateway.cli import models
from gateway.cli.audit import audit_command
from gateway.cli.keys import keys_app
from gateway.cli.metrics import metrics_app
from gateway.cli.optimize import optimize_command
from gateway.cli.register import register_command
from gateway.cli.replay import recordings_command, replay_command
from gateway.cli.rollouts import rollout_app

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

app.command("register")(register_command)
for _name in ("models", "versions", "load", "unload", "run", "alias", "delete"):
    app.command(_name)(getattr(models, f"{_name}_command"))

app.command("audit")(audit_command)
app.add_typer(keys_app, name="keys")
app.add_typer(metrics_app, name="metrics")
app.add_typer(rollout_app, name="rollout")
app.command("optimize")(optimize_command)
app.command("replay")(replay_command)
app.command("recordings")(recordings_command)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gateway {__version__}")
        raise typer.Exit


@app.callback()
def gateway(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    """Serve ONNX image classifiers over NVIDIA Triton."""


# The server's modules take a second to import: the commands that only ask one do without them.


@app.command("serve")
def serve_command(
    demo: Annotated[
        bool, typer.Option(help="Load the demo model if there has never been a model.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(help="Processes that serve requests. Default: WORKERS.")
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure", help="Serve everybody, also on an address that others can reach."
        ),
    ] = False,
) -> None:
    """
    Serve the REST interface.

    An embedded Triton is started unless TRITON_URLS names others.
    """
    _keep_grpc_quiet()
    from gateway.cli import serving  # noqa: PLC0415 - see above

    serving.run_server(demo=demo, workers=workers, insecure=insecure)


@app.command("worker", hidden=True)
def worker_command(number: int, channel: int, handover: int) -> None:
    """Be worker NUMBER of a gateway with several; started by its parent alone."""
    _keep_grpc_quiet()
    from gateway.cli import serving  # noqa: PLC0415 - see above

    serving.run_worker(number, channel, handover)


@app.command("setup-triton")
def setup_triton_command() -> None:
    """Install the Triton server that `serve` runs."""
    from gateway.cli import setup_triton  # noqa: PLC0415 - see above

    setup_triton.run_setup_triton()


@app.command("doctor")
def doctor_command(
    json: Annotated[bool, typer.Option("--json", help="One JSON object, for scripts.")] = False,
) -> None:
    """
    Say what is wrong with this machine, and the fix.

    The exit code is 1 if something is.
    """
    from gateway.cli import serving  # noqa: PLC0415 - see above

    serving.run_doctor(as_json=json)


@app.command("settings")
def settings_command(
    json: Annotated[bool, typer.Option("--json", help="JSON, for scripts.")] = False,
) -> None:
    """Print every setting as a Markdown table."""
    from gateway.cli import serving  # noqa: PLC0415 - see above

    serving.print_settings(as_json=json)


def _keep_grpc_quiet() -> None:
    """Tell gRPC, before its import, to print no line of its own whenever we start a process."""
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


@app.command("tune")
def tune_command(
    name: Annotated[str, typer.Argument(help="The model's name.")],
    version: Annotated[
        int | None, typer.Option("--version", min=1, help="Which version. Default: the champion.")
    ] = None,
    objective: Annotated[
        str, typer.Option("--for", help="balanced, latency or throughput.")
    ] = "balanced",
    budget_s: Annotated[float, typer.Option(min=1, help="Time for measuring, in seconds.")] = 60.0,
    callers: Annotated[
        str, typer.Option(help="Numbers of callers at once, separated by commas.")
    ] = "1,4,16",
    image: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="An image to ask with, of a usual size."),
    ] = None,
    shape: Annotated[
        str | None, typer.Option(help="The input's shape instead, the batch axis first: 1,16,8.")
    ] = None,
    model_repository: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Default: MODEL_REPOSITORY."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Draw p99 against throughput, as SVG.")
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Use the best one, if it is better.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object, for scripts.")] = False,
) -> None:
    """
    Search for a better configuration by measuring.

    Instances, threads and batches of a model, on this machine.
    """
    _keep_grpc_quiet()
    from gateway.cli import tuning  # noqa: PLC0415 - see above

    tuning.run_tune(
        tuning.TuneOptions(
            name=name,
            version=version,
            objective=objective,
            budget_s=budget_s,
            callers=callers,
            image=image,
            shape=shape,
        ),
        model_repository=model_repository,
        plot=plot,
        write=write,
        as_json=json,
    )


def main() -> None:
    """Run the command line."""
    app()
