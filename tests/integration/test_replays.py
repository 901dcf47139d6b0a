"""Recorded traffic, asked of versions that no caller has met, on a real Triton."""

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from testbed.gateway_process import GatewayProcess, running_gateway
from testbed.rollout_calls import register, register_two
from testbed.rollout_family import EASY, colour_model, image_of, load
from tests.eventually import eventually

_DOCUMENT = Path(__file__).parents[2] / "docs/replay.md"
_DOCUMENT = Path(__file__).parents[2] / "docs/replay.md"
_KEY = base64.b64encode(bytes(range(32))).decode()
_METRICS = EASY | {"latency": {"tolerated": 0.95, "required": False, "on_fail": "observe"}}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    environment = {"RECORD_SHARE": "1", "RECORD_KEY": _KEY, "RECORD_MODELS": "seen*"}
    with running_gateway(tmp_path_factory.mktemp("replays"), environment=environment) as process:
        yield process


def _cli(gateway: GatewayProcess, *arguments: str) -> tuple[int, str]:
    environment = {"GATEWAY_URL": gateway.url, "COLUMNS": "200"}
    done = CliRunner().invoke(app, list(arguments), env=environment)
    return done.exit_code, done.output


async def _replayed(gateway: GatewayProcess, name: str, **body: Any) -> dict[str, Any]:
    url = f"/api/v1/models/{name}/replays"
    answer = gateway.client.post(url, json=body)
    assert answer.status_code == 200, answer.text
    ended: dict[str, Any] = {}

    def has_ended() -> bool:
        ended.update(gateway.client.get(f"{url}/{answer.json()['id']}").json())
        return bool(ended["state"] != "running")

    await eventually(has_ended, within_s=60)
    return ended


async def test_recorded_traffic_tells_a_good_version_from_a_bad_one(
    gateway: GatewayProcess, tmp_path: Path
) -> None:
    """
    A version with the same answers passes, one that answers wrongly fails by what feedback told;
    neither stays loaded, no caller meets them, and nothing recorded can be read on the disk.
    """
    register_two(gateway, "seen", tmp_path)
    assert register(gateway, "seen", colour_model(tmp_path / "3.onnx", seed=3, flipped=True)) == 3
    with load(gateway.url, "seen", clients=1, feedback=1.0) as callers:
        await eventually(lambda: _recorded(gateway)["labelled"] >= 60, within_s=60)
    assert set(callers.versions) == {"1"}
    passed = await _replayed(gateway, "seen", version=2, min_samples=50, metrics=_METRICS)
    assert passed["state"] == "done", passed["error"]
    assert passed["asked"] == passed["images"] >= 60
    assert passed["labelled"] >= 60
    numbers = {each["metric"]: each for each in passed["verdict"]["metrics"]}
    assert numbers["agreement"]["outcome"] == "Successful"
    assert numbers["accuracy"]["champion"] == numbers["accuracy"]["challenger"] == 1
    assert numbers["latency"]["challenger_samples"] > 0
    code, said = _cli(gateway, "replay", "seen", "3", "--min-samples", "50", "--json")
    assert code == 4, said
    failed = json.loads(said)
    assert (failed["version"], failed["verdict"]["outcome"]) == (3, "Failed")
    assert "accuracy" in failed["verdict"]["sentence"]
    code, said = _cli(gateway, "replay", "seen", "3", "--images", "9", "--min-samples", "5")
    # Nobody has told the true classes of the newest yet: they differ, which decides nothing.
    assert (code, "Inconclusive" in said) == (3, True), said
    assert "9 requests asked of versions 1 and 3" in said
    listed = gateway.client.get("/api/v1/models/seen/replays").json()
    assert [each["version"] for each in listed] == [3, 3, 2]
    assert gateway.client.get("/api/v1/models/seen").json()["loaded"] == [1]
    sent = [base64.b64decode(image_of(category)["image"]) for category in range(3)]
    files = list((gateway.folder / "var/recordings/seen").iterdir())
    assert len(files) >= 120
    assert not any(image in file.read_bytes() for file in files for image in sent)
    _type_the_document(gateway)
    code, said = _cli(gateway, "recordings", "seen")
    assert (code, said.startswith("0 requests"), "is encrypted" in said) == (0, True, True)
    assert not list((gateway.folder / "var/recordings").glob("seen/*"))


def _type_the_document(gateway: GatewayProcess) -> None:
    """Run every command of docs/replay.md; a replay may find too little to tell, which is 3."""
    blocks = re.findall(r"^```bash\n(.*?)^```", _DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for block in blocks:
        text = block.replace("flowers", "seen").replace("http://127.0.0.1:3000", gateway.url)
        done = subprocess.run(
            ["bash", "-euc", text.replace("curl", "curl --silent --fail-with-body")],
            env={**os.environ, "GATEWAY_URL": gateway.url, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        allowed = {0, 3} if "gateway replay" in text else {0}
        assert done.returncode in allowed, f"{text}\n{done.stdout}\n{done.stderr}"


def _recorded(gateway: GatewayProcess) -> dict[str, Any]:
    found: dict[str, Any] = gateway.client.get("/api/v1/models/seen/recordings").json()
    return found


def test_what_cannot_be_replayed_is_refused(gateway: GatewayProcess, tmp_path: Path) -> None:
    """Of no recorded model, the champion, what is not there: each with a code of its own."""
    register_two(gateway, "unseen", tmp_path)
    answer = gateway.client.post("/api/v1/run/unseen", json=image_of(1))
    assert answer.status_code == 200, answer.text
    refused = [
        ("/api/v1/models/unseen/replays", {"version": 2}, 409, "nothing_recorded"),
        ("/api/v1/models/unseen/replays", {"version": 1}, 422, "rollout_invalid"),
        ("/api/v1/models/unseen/replays", {"version": 9}, 404, "version_not_found"),
        ("/api/v1/models/unseen/replays", {"version": 2, "alpha": 9}, 422, "rollout_invalid"),
        ("/api/v1/models/nobody/replays", {"version": 2}, 404, "model_not_found"),
    ]
    for url, body, status, code in refused:
        answer = gateway.client.post(url, json=body)
        assert (answer.status_code, answer.json()["code"]) == (status, code), body
    missing = gateway.client.get("/api/v1/models/unseen/replays/none")
    assert (missing.status_code, missing.json()["code"]) == (404, "replay_not_found")
    assert _cli(gateway, "replay", "unseen", "2")[0] == 1
