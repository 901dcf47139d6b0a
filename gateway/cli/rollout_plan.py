"""`gateway rollout plan`: how long a rollout takes, before it begins; and what is asked for."""

from typing import Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from gateway.cli.client import AsJson, Key, Url, console, gateway_at, make_table, show_json

Model = Annotated[str, typer.Argument(help="The model's name.")]
Challenger = Annotated[int, typer.Argument(min=1, help="The challenger.")]
Strategies = Annotated[str, typer.Option(help="shadow, canary, ab, or several: shadow,canary.")]
Interval = Annotated[float, typer.Option(help="Seconds between two checks.")]
MinSamples = Annotated[int, typer.Option(help="Answers before a step passes.")]
Deadline = Annotated[float, typer.Option(help="An undecided step waits then.")]


def plan_command(
    model: Model,
    version: Challenger,
    strategy: Strategies = "shadow,canary",
    steps: Annotated[
        str | None, typer.Option(help="Weights of the last strategy: 5,25,50,100.")
    ] = None,
    interval_s: Interval = 10.0,
    min_samples: MinSamples = 100,
    deadline_s: Deadline = 86_400.0,
    labels: Annotated[
        float | None, typer.Option(help="The share of the answers that get a label, 0 to 1.")
    ] = None,
    labels_delay_s: Annotated[float, typer.Option(help="How long after the answer.")] = 0.0,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Tell how many requests a rollout takes, and how long."""
    body = plan_body(version, strategy, steps, interval_s, min_samples) | {"deadline_s": deadline_s}
    if labels is not None:
        body["labels"] = {"fraction": labels, "delay_s": labels_delay_s}
    with gateway_at(url, key) as gateway:
        found = gateway.call("POST", f"/api/v1/models/{model}/rollout-plan", json=body)
    if as_json:
        show_json(found)
    else:
        console().print(_picture(found))


def plan_body(
    version: int, strategy: str, steps: str | None, interval_s: float, min_samples: int
) -> dict[str, Any]:
    """What a rollout is asked for, from a command's options."""
    body: dict[str, Any] = {
        "version": version,
        "strategy": [name.strip() for name in strategy.split(",")],
        "interval_s": interval_s,
        "min_samples": min_samples,
    }
    if steps is not None:
        try:
            body["steps"] = [float(step) for step in steps.split(",")]
        except ValueError:
            raise typer.BadParameter("numbers with commas between: 5,25,50") from None
    return body


def _picture(forecast: dict[str, Any]) -> Group:
    """Draw how long each step of a plan takes."""
    table = make_table(
        "strategy", "share", "requests", "takes", "decided by", right=("share", "requests", "takes")
    )
    for step in forecast["steps"]:
        table.add_row(
            step["strategy"],
            f"{step['share']:g} %",
            _requests(step["requests"]),
            _duration(step["seconds"]),
            step["decided_by"],
        )
    whole = _requests(forecast["requests"]), _duration(forecast["seconds"])
    table.add_row("in all", "", *whole, "")
    rate = f"The model gets {forecast['requests_per_s']:.3g} requests a second."
    suggested = forecast["suggested_steps"]
    steps = "" if suggested is None else f"--steps {','.join(f'{step:g}' for step in suggested)}"
    return Group(
        rate if forecast["requests_per_s"] else "Nothing is known of the model's traffic.",
        table,
        f"Suggested: {steps}" if steps else "",
        *(Text(note, style="dim") for note in forecast["notes"]),
    )


def _requests(requests: int | None) -> str:
    return "never decided" if requests is None else f"{requests:,}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    for unit, length_s in (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.1f} {unit}"
    return f"{seconds:.0f} s"
