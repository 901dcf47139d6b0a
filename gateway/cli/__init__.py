"""
The command line. Each module beside this one holds the commands of one subject.

    client.py    how the others reach a gateway
    models.py    register, models, versions, load, unload, run, alias, delete
    serving.py   serve, doctor, settings
"""

import typer

from gateway.cli import models
from gateway.cli.serving import doctor_command, serve_command, settings_command

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("serve")(serve_command)
app.command("doctor")(doctor_command)
app.command("settings")(settings_command)

for _name in ("register", "models", "versions", "load", "unload", "run", "alias", "delete"):
    app.command(_name)(getattr(models, f"{_name}_command"))


@app.callback()
def gateway() -> None:
    """Serve ONNX image classifiers over NVIDIA Triton."""


def main() -> None:
    """Run the command line."""
    app()
