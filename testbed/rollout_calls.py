"""Calls about rollouts, as the tests make them."""

import threading
import time
from pathlib import Path
from typing import Any

import httpx

from gateway.converter.model_config import ConfigOptions
from gateway.converter.publish import publish_version
from testbed.gateway_process import GatewayProcess
from testbed.rollout_family import EASY, colour_model

WITHIN_S = 60.0


def register(gateway: GatewayProcess, name: str, file: Path) -> int:
    answer = gateway.client.post(
        "/api/v1/register",
        params={"name": name},
        content=file.read_bytes(),
        headers={"Content-Type": "application/octet-stream"},
    )
    assert answer.status_code == 200, answer.text
    version: int = answer.json()["version"]
    return version


def register_two(gateway: GatewayProcess, name: str, folder: Path, **challenger: Any) -> None:
    assert register(gateway, name, colour_model(folder / "one.onnx")) == 1
    assert register(gateway, name, colour_model(folder / "two.onnx", seed=1, **challenger)) == 2
    assert gateway.client.post("/api/v1/load", params={"name": name}).status_code == 200


def publish_versions(folder: Path, name: str, *, versions: int = 2, **challenger: Any) -> None:
    """Put versions into the repository of a gateway that is still to be started in `folder`."""
    for version in range(1, versions + 1):
        kind = challenger if version == 2 else {}
        publish_version(
            colour_model(folder / f"{name}-{version}.onnx", seed=version, **kind),
            repository=folder / "repository",
            name=name,
            version=version,
            options=ConfigOptions(),
        )


def adopt(gateway: GatewayProcess, name: str) -> None:
    """Make version 1 of what was published the champion, and load it."""
    answer = gateway.client.put(f"/api/v1/models/{name}/aliases/champion", json={"version": 1})
    assert answer.status_code == 200, answer.text
    assert gateway.client.post("/api/v1/load", params={"name": name}).status_code == 200


def create(gateway: GatewayProcess, name: str, **body: Any) -> str:
    plan = {"version": 2, "interval_s": 0.5, "min_samples": 20, "metrics": EASY} | body
    answer = gateway.client.post(f"/api/v1/models/{name}/rollouts", json=plan)
    assert answer.status_code == 200, answer.text
    rollout: str = answer.json()["id"]
    return rollout


def show(client: httpx.Client, rollout: str) -> dict[str, Any]:
    answer = client.get(f"/api/v1/rollouts/{rollout}")
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def until(client: httpx.Client, rollout: str, *phases: str) -> dict[str, Any]:
    deadline_s, tick = time.monotonic() + WITHIN_S, threading.Event()
    while time.monotonic() < deadline_s:
        if (state := show(client, rollout))["phase"] in phases:
            return state
        tick.wait(0.1)
    raise AssertionError(f"not {phases} within {WITHIN_S} s: {state}")


def champion(client: httpx.Client, name: str) -> int:
    champion: int = client.get(f"/api/v1/models/{name}").json()["aliases"]["champion"]
    return champion
