"""`gateway optimize`: a faster challenger, made of a version and proved on images."""

import io
import zipfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from gateway.cli.client import AsJson, Key, Url, console, gateway_at, make_table, show_json

_TIMEOUT_S = 7200.0
_NOT_WORTH_IT = 3


def optimize_command(
    name: Annotated[str, typer.Argument(help="The model's name.")],
    version: Annotated[
        int | None, typer.Option("--version", min=1, help="Of which version. Default: champion.")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            exists=True, help="A folder or zip of images. Default: the model's evaluation set."
        ),
    ] = None,
    calibrate: Annotated[
        int, typer.Option(min=1, max=5000, help="So many images calibrate, a quarter at most.")
    ] = 128,
    least_agreement: Annotated[
        float, typer.Option(min=0, max=1, help="Share of images that must be answered alike.")
    ] = 0.98,
    least_speedup: Annotated[
        float, typer.Option(min=0, max=100, help="How many times as fast it must be.")
    ] = 1.1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Measure, and register nothing.")
    ] = False,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """
    Make a faster challenger in eight bits.

    It is measured on the gateway's machine and registered as the next version, if it is worth it.

    Exit code 3: nothing is.
    """
    params: dict[str, Any] = {
        "images": calibrate,
        "least_agreement": least_agreement,
        "least_speedup": least_speedup,
        "dry_run": str(dry_run).lower(),
    }
    params |= {} if version is None else {"version": version}
    content = None if images is None else _zip(images)
    waiting = Console(stderr=True)
    with (
        gateway_at(url, key) as gateway,
        waiting.status("Calibrating, quantizing and measuring"),
    ):
        found = gateway.call(
            "POST",
            f"/api/v1/models/{name}/optimize",
            params=params,
            content=content,
            timeout=_TIMEOUT_S,
        )
    if as_json:
        show_json(found)
    else:
        _show(found)
    if found["chosen"] is None:
        raise typer.Exit(_NOT_WORTH_IT)


def _zip(images: Path) -> bytes:
    """Read a zip, or make one of a folder."""
    if images.is_file():
        return images.read_bytes()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path in sorted(images.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(images))
    return content.getvalue()


def _show(found: dict[str, Any]) -> None:
    out = console()
    shown = make_table("CANDIDATE", "AGREEMENT", "ACCURACY", "LATENCY", "SPEEDUP", "SIZE")
    for index, row in enumerate([found["itself"], *found["candidates"]]):
        accuracy = row["accuracy"]
        shown.add_row(
            Text(row["name"], style="bold" if found["chosen"] == index - 1 else ""),
            f"{row['agreement']:.1%}",
            "-" if accuracy is None else f"{accuracy:.1%}",
            f"{row['latency_ms']:.2f} ms",
            f"{row['speedup']:.2f}×",
            f"{row['size_bytes'] / 1e6:.2f} MB",
        )
    out.print(shown)
    out.print(
        f"Calibrated on {found['calibrated_on']} images, judged on {found['judged_on']} others."
    )
    if not found["vnni"]:
        out.print("This processor has no instructions for 8-bit products: the gain is small.")
    out.print(found["reason"], markup=False)
    if found["version"] is not None:
        out.print(
            f"{found['model']} version {found['version']} is registered. A rollout judges it: "
            f"gateway rollout create {found['model']} {found['version']}",
            markup=False,
        )
