"""`gateway rollout`: create, list, watch, promote, roll back, pause, resume, skip-step, history."""

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.text import Text

from gateway.cli.client import (
    AsJson,
    GatewayClient,
    Key,
    Url,
    console,
    gateway_at,
    make_table,
    show_json,
)
from gateway.cli.rollout_picture import coloured, picture
from gateway.cli.rollout_plan import (
    Challenger,
    Deadline,
    Interval,
    MinSamples,
    Model,
    Strategies,
    plan_body,
    plan_command,
)

rollout_app = typer.Typer(
    no_args_is_help=True, help="Replace champions on evidence.", rich_markup_mode=None
)

RolloutId = Annotated[str, typer.Argument(help="The rollout's id, or a model: its newest one.")]

_ENDED = {"Succeeded", "Failed"}
# Not 2: a mistyped command ends with it.
_EXIT_CODES = {"Failed": 4, "Waiting": 3}


@rollout_app.command("create")
def create_command(
    model: Model,
    version: Challenger,
    strategy: Strategies = "shadow,canary",
    steps: Annotated[
        str | None,
        typer.Option(
            help="Weights of the last strategy: 5,25,50,100; auto: as the model's traffic allows."
        ),
    ] = None,
    interval_s: Interval = 10.0,
    min_samples: MinSamples = 100,
    deadline_s: Deadline = 86_400.0,
    auto_promote: Annotated[bool, typer.Option(help="Promote without a human.")] = True,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Begin a rollout of a version."""
    automatic = steps == "auto"
    body = plan_body(version, strategy, None if automatic else steps, interval_s, min_samples)
    body |= {"deadline_s": deadline_s, "auto_promote": auto_promote}
    with gateway_at(url, key) as gateway:
        if automatic:
            forecast = gateway.call("POST", f"/api/v1/models/{model}/rollout-plan", json=body)
            body["steps"] = forecast["suggested_steps"]
        answer = gateway.call("POST", f"/api/v1/models/{model}/rollouts", json=body)
    _tell(answer, as_json=as_json)


rollout_app.command("plan")(plan_command)


@rollout_app.command("watch")
def watch_command(
    rollout: RolloutId,
    every_s: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
    waiting: Annotated[
        bool, typer.Option("--through-waiting", help="Go on while it waits.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line for each change.")] = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """
    Draw weight, samples and verdicts until it ends or waits.

    Exit code 4: it failed. 3: it waits, for evidence (and then goes on by itself) or for a human.
    """
    phase, revision = "", None
    with gateway_at(url, key) as gateway, contextlib.ExitStack() as stack:
        # Opened at the first look, so that a rollout that is not there leaves nothing drawn.
        live: Live | None = None
        for state in _looks(gateway, _find(gateway, rollout), every_s, waiting=waiting):
            phase = state["phase"]
            if as_json and state["revision"] != revision:
                typer.echo(json.dumps(state))
            elif not as_json:
                live = live or stack.enter_context(Live(console=console(), auto_refresh=False))
                live.update(picture(state), refresh=True)
            revision = state["revision"]
    if phase in _EXIT_CODES:
        raise typer.Exit(_EXIT_CODES[phase])


def _looks(
    gateway: GatewayClient, rollout: str, every_s: float, *, waiting: bool
) -> Iterator[dict[str, Any]]:
    """Look at a rollout until it has ended, or waits, which is the last look."""
    while True:
        state: dict[str, Any] = gateway.call("GET", f"/api/v1/rollouts/{rollout}")
        yield state
        if state["phase"] in _ENDED or (state["phase"] == "Waiting" and not waiting):
            return
        time.sleep(every_s)


@rollout_app.command("promote")
def promote_command(
    rollout: RolloutId, as_json: AsJson = False, url: Url = None, key: Key = None
) -> None:
    """Promote the challenger now, whatever the evidence."""
    _command("promote", rollout, url, key, as_json=as_json)


@rollout_app.command("rollback")
def rollback_command(
    rollout: RolloutId,
    reason: Annotated[str, typer.Option(help="Why.")] = "Rolled back by a human.",
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Give all traffic to the champion, at once."""
    _command("rollback", rollout, url, key, as_json=as_json, reason=reason)


@rollout_app.command("pause")
def pause_command(
    rollout: RolloutId, as_json: AsJson = False, url: Url = None, key: Key = None
) -> None:
    """Hold the step; a failure still rolls back."""
    _command("pause", rollout, url, key, as_json=as_json)


@rollout_app.command("resume")
def resume_command(
    rollout: RolloutId, as_json: AsJson = False, url: Url = None, key: Key = None
) -> None:
    """Go on after a pause or a wait."""
    _command("resume", rollout, url, key, as_json=as_json)


@rollout_app.command("skip-step")
def skip_step_command(
    rollout: RolloutId, as_json: AsJson = False, url: Url = None, key: Key = None
) -> None:
    """Go to the next step now, whatever the evidence."""
    _command("skip-step", rollout, url, key, as_json=as_json)


@rollout_app.command("samples")
def samples_command(
    rollout: RolloutId, as_json: AsJson = False, url: Url = None, key: Key = None
) -> None:
    """Show requests that both answered differently."""
    with gateway_at(url, key) as gateway:
        found = _find(gateway, rollout)
        samples = gateway.call("GET", f"/api/v1/rollouts/{found}/samples")
    if as_json:
        show_json(samples)
        return
    if not samples:
        console().print("No request was answered differently so far.")
        return
    table = make_table("REQUEST", "CHAMPION", "CHALLENGER", "KEPT", "IMAGE", whole=("REQUEST",))
    for each in samples:
        table.add_row(
            each["request_id"],
            each["champion"]["category"],
            each["challenger"]["category"],
            "yes" if each["image_kept"] else "no",
            each["image_digest"],
        )
    console().print(table)


@rollout_app.command("list")
def list_command(as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """Show the rollouts that have not ended."""
    with gateway_at(url, key) as gateway:
        rollouts = gateway.call("GET", "/api/v1/rollouts", params={"limit": 10_000})
    _list([each for each in rollouts if each["phase"] not in _ENDED], as_json=as_json)


@rollout_app.command("history")
def history_command(
    model: Annotated[str | None, typer.Argument(help="A model; without one, all.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Show rollouts, the newest first."""
    path = "/api/v1/rollouts" if model is None else f"/api/v1/models/{model}/rollouts"
    with gateway_at(url, key) as gateway:
        rollouts = gateway.call("GET", path)
    _list(rollouts, as_json=as_json)


def _list(rollouts: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        show_json(rollouts)
        return
    if not rollouts:
        console().print("No rollouts. To begin one: gateway rollout create MODEL VERSION")
        return
    table = make_table(
        "ID", "MODEL", "VERSIONS", "PHASE", "WEIGHT", "CREATED", "WHY", whole=("ID",)
    )
    for each in rollouts:
        table.add_row(
            each["id"],
            each["model"],
            f"{each['champion']} → {each['challenger']}",
            coloured(each["phase"]),
            f"{each['weight']:g}",
            each["created_at"][:16].replace("T", " "),
            each["reason"],
        )
    console().print(table)


def _command(
    name: str, rollout: str, url: str | None, key: str | None, *, as_json: bool, **parameters: str
) -> None:
    with gateway_at(url, key) as gateway:
        found = _find(gateway, rollout)
        answer = gateway.call("POST", f"/api/v1/rollouts/{found}/{name}", params=parameters)
    _tell(answer, as_json=as_json)


def _find(gateway: GatewayClient, rollout: str) -> str:
    """Find a rollout by its id, or the newest one of a model."""
    rollouts = gateway.call("GET", "/api/v1/rollouts", params={"limit": 10_000})
    for each in rollouts:
        if rollout in {each["id"], each["model"]}:
            found: str = each["id"]
            return found
    return rollout


def _tell(rollout: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(rollout)
        return
    console().print(
        Text.assemble(
            f"Rollout {rollout['id']} of {rollout['model']}, version {rollout['challenger']}: ",
            coloured(rollout["phase"]),
            f", weight {rollout['weight']:g}. {rollout['reason']}",
        )
    )
    for warning in rollout["warnings"]:
        console().print(Text(f"Warning: {warning}", style="yellow"))
