"""
SIGKILL of the gateway at every step of register. REGISTER_KILLS says how often (a multiple of the
steps covers each of them alike).
"""

import hashlib
import json
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from testbed.gateway_process import GatewayProcess, running_gateway
from tests.model_family import classifier_case

_KILLS = int(os.environ.get("REGISTER_KILLS", "9"))
_MODEL = "killed"
# No replica is needed to register, and without one the gateway starts at once.
_ENVIRONMENT = {"TRITON_URLS": "http://127.0.0.1:9"}


class _World:
    """What lies on the disk of a gateway, seen from outside."""

    def __init__(self, folder: Path) -> None:
        self.repository = folder / "repository"
        self._database = folder / "var" / "gateway.db"

    def staged(self, pattern: str) -> bool:
        return any((self.repository / ".staging").glob(pattern))

    def rows(self, table: str) -> list[int]:
        with sqlite3.connect(f"file:{self._database}?mode=ro", uri=True) as connection:
            query = f"SELECT version FROM {table} WHERE model = ?"
            rows = connection.execute(query, (_MODEL,)).fetchall()
        connection.close()
        return sorted(row[0] for row in rows)

    def versions(self) -> list[int]:
        model = self.repository / _MODEL
        if not model.is_dir():
            return []
        return sorted(int(path.name) for path in model.iterdir() if path.name.isdecimal())


def _steps(world: _World, expected: int) -> list[tuple[str, Callable[[], bool]]]:
    """Give moments of a registration, and how each is seen."""
    place = world.repository / _MODEL / str(expected)
    return [
        ("before anything", lambda: True),
        ("upload", lambda: world.staged("gateway-*/*/model.onnx")),
        ("validation", lambda: world.staged("gateway-*/*/report.json")),
        ("claim", lambda: world.rows("unsettled") != []),
        ("staging", lambda: world.staged("*/killed")),
        ("copy", lambda: world.staged(f"*/killed/{expected}/model.onnx")),
        ("publication", place.is_dir),
        ("record", lambda: world.rows("versions")[-1:] == [expected]),
        ("answer", lambda: False),
    ]


@pytest.mark.timeout(400)
def test_a_version_is_absent_or_complete_wherever_the_gateway_is_killed(tmp_path: Path) -> None:
    """After every kill: the record and the files agree, and what was acknowledged is there."""
    dice, world, acknowledged = random.Random(0), _World(tmp_path), set[int]()
    outcomes: dict[str, list[str]] = {}
    for turn in range(_KILLS + 1):
        with running_gateway(tmp_path, environment=_ENVIRONMENT) as gateway:
            _check(gateway, world, acknowledged)
            if turn == _KILLS:
                break
            before = world.rows("versions")
            expected = max(before, default=0) + 1
            step, reached = _steps(world, expected)[turn % 9]
            answers = _register_and_kill(gateway, turn, reached, dice.uniform(0.0, 0.01))
            acknowledged.update(answers)
            done = "complete" if world.rows("versions") != before else "absent"
            outcomes.setdefault(step, []).append(done)
    (tmp_path / "outcomes.json").write_text(json.dumps(outcomes))
    assert outcomes["before anything"].count("absent") == len(outcomes["before anything"])
    assert outcomes["answer"].count("complete") == len(outcomes["answer"])


def _register_and_kill(
    gateway: GatewayProcess, seed: int, reached: Callable[[], bool], delay_s: float
) -> list[int]:
    """Register new bytes, kill the gateway at a moment; return the version if it was answered."""
    content = classifier_case("m", (None, None, None, 3), seed=seed).make().SerializeToString()
    answers: list[int] = []

    def register() -> None:
        try:
            answer = gateway.client.post(
                "/api/v1/register", params={"name": _MODEL}, content=content
            )
        except httpx.TransportError:
            return
        assert answer.status_code == 200, answer.text
        answers.append(answer.json()["version"])

    thread = threading.Thread(target=register)
    thread.start()
    while thread.is_alive() and not reached():
        time.sleep(0.0005)  # the moment is another process's; no event tells of it
    time.sleep(delay_s)
    gateway.process.kill()
    gateway.process.wait()
    thread.join()
    gateway.kill()
    return answers


def _check(gateway: GatewayProcess, world: _World, acknowledged: set[int]) -> None:
    recorded = world.rows("versions")
    assert world.rows("unsettled") == []
    assert world.versions() == recorded
    assert acknowledged <= set(recorded)
    assert not world.staged("*/killed")
    assert len(list((world.repository / ".staging").glob("gateway-*"))) == 1
    if not recorded:
        assert not (world.repository / _MODEL).exists()
        return
    for row in gateway.client.get(f"/api/v1/models/{_MODEL}/versions").json():
        path = world.repository / _MODEL / str(row["version"]) / "model.onnx"
        assert f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" == row["digest"]
    config = (world.repository / _MODEL / "config.pbtxt").read_text()
    assert f"versions: {recorded[-1]}\n" in config
