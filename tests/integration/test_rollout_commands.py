"""`gateway rollout`, and the commands of docs/versioning.md, against a real gateway."""

import base64
import json
import os
import pty
import re
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from testbed.gateway_process import GatewayProcess, running_gateway
from testbed.rollout_calls import WITHIN_S, adopt, create, publish_versions
from testbed.rollout_family import colour_model, image_of, load

_DOCUMENT = Path(__file__).parents[2] / "docs/versioning.md"
_BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("commands")
    publish_versions(folder, "flowers", versions=1)
    publish_versions(folder, "cli")
    publish_versions(folder, "flipped", flipped=True)
    with running_gateway(folder, environment={"ROLLOUT_POLL_S": "0.1"}) as process:
        for name in ("flowers", "cli", "flipped"):
            adopt(process, name)
        yield process


def _rollout(gateway: GatewayProcess, *arguments: str) -> tuple[int, str]:
    environment = {"GATEWAY_URL": gateway.url, "COLUMNS": "200"}
    done = CliRunner().invoke(app, ["rollout", *arguments], env=environment)
    return done.exit_code, done.output


def _json(gateway: GatewayProcess, *arguments: str) -> Any:
    code, output = _rollout(gateway, *arguments, "--json")
    assert code == 0, output
    return json.loads(output)


def test_every_command_does_what_it_says(gateway: GatewayProcess) -> None:
    """Create, list, pause, resume, promote, roll back, history: for people, and as JSON."""
    planned = _json(gateway, "plan", "cli", "2", "--labels", "0.1")
    assert [step["share"] for step in planned["steps"]] == [100, 1, 5, 25, 50]
    assert planned["requests"] == sum(step["requests"] for step in planned["steps"])
    code, said = _rollout(gateway, "plan", "cli", "2", "--strategy", "ab")
    assert (code, "never decided" in said) == (0, True)
    assert "version_not_found" in _rollout(gateway, "plan", "cli", "9")[1]
    code, said = _rollout(gateway, "create", "cli", "2", "--strategy", "canary", "--steps", "50")
    assert code == 0
    assert "version 2: Progressing, weight 50" in said
    assert "Warning: Nothing measures the answers" in said
    (listed,) = _json(gateway, "list")
    assert listed["warnings"]
    assert _rollout(gateway, "list")[1].count(listed["id"]) == 1
    assert _json(gateway, "pause", "cli")["paused"] is True
    assert _json(gateway, "resume", "cli")["paused"] is False
    code, said = _rollout(gateway, "skip-step", "cli")
    assert (code, "promote it instead" in said) == (1, True)
    ended = _json(gateway, "rollback", "cli", "--reason", "no reason")
    assert (ended["phase"], ended["weight"], ended["reason"]) == ("Failed", 0, "no reason")
    assert _json(gateway, "list") == []
    begun = _json(gateway, "create", "cli", "2", "--strategy", "shadow")
    assert (begun["strategy"], begun["mirror_share"], begun["warnings"]) == ("shadow", 100, [])
    assert _json(gateway, "promote", begun["id"])["phase"] == "Succeeded"
    assert [each["phase"] for each in _json(gateway, "history", "cli")] == ["Succeeded", "Failed"]
    code, said = _rollout(gateway, "history")
    assert code == 0
    assert "1 → 2" in said
    code, said = _rollout(gateway, "promote", "cli")
    assert code == 1
    assert "rollout_conflict" in said
    assert _rollout(gateway, "create", "cli", "2", "--steps", "many")[0] == 2


def test_watch_draws_until_the_end(gateway: GatewayProcess) -> None:
    """On a terminal the verdicts are drawn as they come; code 4 if it failed, 3 if it waits."""
    rollout = create(gateway, "flipped", strategy="shadow")
    leader, follower = pty.openpty()
    watching = subprocess.Popen(
        [sys.executable, "-m", "gateway", "rollout", "watch", "flipped", "--every-s", "0.1"],
        env={**os.environ, "GATEWAY_URL": gateway.url, "TERM": "xterm", "COLUMNS": "150"},
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    drawn = os.read(leader, 65536)
    with load(gateway.url, "flipped", clients=2):
        while True:
            try:
                part = os.read(leader, 65536)
            except OSError:  # Linux: the other side is closed
                break
            drawn += part
    assert watching.wait(10) == 3
    os.close(leader)
    text = drawn.decode()
    assert "flipped  1 → 2  Progressing" in re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert "agreement" in text
    assert text.count("\x1b[2K") > 5  # lines that were drawn anew
    code, said = _rollout(gateway, "watch", rollout, "--json")
    assert (code, json.loads(said)["phase"]) == (3, "Waiting")
    _json(gateway, "rollback", rollout)
    code, said = _rollout(gateway, "watch", rollout, "--json")
    assert code == 4
    assert json.loads(said)["phase"] == "Failed"
    samples = _json(gateway, "samples", "flipped")
    assert {sample["image_kept"] for sample in samples} == {False}
    code, said = _rollout(gateway, "samples", "flipped")
    assert samples[0]["image_digest"] in said
    missing = gateway.client.get(
        f"/api/v1/rollouts/{rollout}/samples/{samples[0]['image_digest']}/image"
    )
    assert (missing.status_code, missing.json()["code"]) == (404, "sample_not_found")


class _Reader:
    """Does what the document's reader does between its commands, and what the text says happens."""

    def __init__(self, gateway: GatewayProcess, work: Path) -> None:
        self.gateway = gateway
        colour_model(work / "new.onnx", seed=9)
        with zipfile.ZipFile(work / "flowers-labelled.zip", "w") as archive:
            for category in range(3):
                content = base64.b64decode(image_of(category)["image"])
                archive.writestr(f"{category}.png", content)
            labels = ["file,category", *(f"{category}.png,{category}" for category in range(3))]
            archive.writestr("labels.csv", "\n".join(labels))

    def prepare(self, block: str) -> str:
        """Bring about what a block needs, and put in what only the reader can know."""
        if "rollout watch" in block:
            threading.Thread(target=self._promote).start()
        if "versions/2/evaluation" in block:
            until_s = time.monotonic() + WITHIN_S
            url = "/api/v1/models/flowers/versions/2/evaluation"
            while self.gateway.client.get(url).status_code != 200:
                assert time.monotonic() < until_s
                time.sleep(0.05)
        if "rollout promote" in block:
            create(self.gateway, "flowers", strategy="shadow", gate=False)
        if "THE-X-REQUEST-ID" in block:
            answer = self.gateway.client.post("/api/v1/run/flowers", json=image_of(1))
            block = block.replace("THE-X-REQUEST-ID", answer.headers["x-request-id"])
        return block.replace("http://127.0.0.1:3000", self.gateway.url)

    def _promote(self) -> None:
        """End the rollout that is watched: its own end would take a hundred thousand requests."""
        until_s = time.monotonic() + WITHIN_S
        while time.monotonic() < until_s:
            for rollout in self.gateway.client.get("/api/v1/models/flowers/rollouts").json():
                self.gateway.client.post(f"/api/v1/rollouts/{rollout['id']}/promote")
                return
            time.sleep(0.05)


def test_every_command_of_the_document_works(gateway: GatewayProcess, tmp_path: Path) -> None:
    """The blocks of docs/versioning.md run one after the other against one gateway; none fails."""
    reader, blocks = _Reader(gateway, tmp_path), _BLOCK.findall(_DOCUMENT.read_text())
    assert len(blocks) == 9
    (tmp_path / ".curlrc").write_text("fail-with-body\nsilent\n")
    environment = {
        **os.environ,
        "GATEWAY_URL": gateway.url,
        "CURL_HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    for block in blocks:
        text = reader.prepare(block)
        done = subprocess.run(
            ["bash", "-euc", text],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
