"""`gateway tune`, as it is typed, beside a gateway that serves the model."""

import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from gateway.converter.model_config import parse
from gateway.demo import SAMPLE, publish_demo
from gateway.tuning.candidates import FIELDS
from gateway.tuning.search import LEAST_FINAL_ROUNDS
from testbed.gateway_process import running_gateway
from tests.eventually import eventually

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[2]
DELAY_S = 0.02
_DELAY = f"  max_queue_delay_microseconds: {DELAY_S * 1e6:.0f}"


def _tune(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    temporary = folder / "temporary"
    temporary.mkdir()
    return subprocess.run(
        [sys.executable, "-m", "gateway", "tune", *arguments],
        cwd=folder,
        env={
            **{k: v for k, v in os.environ.items() if k in {"PATH", "HOME", "LANG"}},
            "DATA_DIR": str(folder / "var"),
            "MODEL_REPOSITORY": str(folder / "repository"),
            "TMPDIR": str(temporary),
        },
        capture_output=True,
        text=True,
        check=False,
    )


def _badly_configured(repository: Path) -> str:
    """Give the demo model a batcher that makes every lonely request wait; return the text."""
    publish_demo(repository)
    config = repository / "digits/config.pbtxt"
    text = f"# Ours.\n{config.read_text()}dynamic_batching {{\n{_DELAY}\n}}\n"
    config.write_text(text)
    return text


async def test_a_bad_configuration_is_replaced(tmp_path: Path) -> None:
    """
    Beside a gateway in service: candidates are measured, told and drawn; the better one is written
    and loaded by the gateway, which answers all along; nothing else changes or stays behind.
    """
    before = _badly_configured(tmp_path / "repository")
    image = {"image": base64.b64encode(SAMPLE.read_bytes()).decode()}
    picture = tmp_path / "tune.svg"
    with running_gateway(tmp_path, "--demo") as gateway:

        def took_s() -> float:
            began_s = time.perf_counter()
            answer = gateway.client.post("/api/v1/run/digits", json=image)
            assert answer.json() == {"category": "07"}, answer.text
            return time.perf_counter() - began_s

        assert took_s() > DELAY_S
        done = _tune(
            tmp_path,
            *("digits", "--for", "throughput", "--budget-s", "8", "--callers", "1,2"),
            *("--image", str(SAMPLE), "--write", "--json", "--plot", str(picture)),
        )
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["replace"], told["reason"]
        assert told["written"] == {"file": True, "versions": [1]}
        await eventually(lambda: took_s() < DELAY_S)
    assert len({candidate["text"] for candidate in told["candidates"]}) >= 3
    assert told["failed"] == []
    for candidate in [*told["candidates"], *told["final"]]:
        assert [found["callers"] for found in candidate["by_callers"]] == [1, 2]
        assert all(found["rate_per_s"] > 0 < found["p99_s"] for found in candidate["by_callers"])
    assert min(candidate["rounds"] for candidate in told["final"]) >= LEAST_FINAL_ROUNDS
    ET.parse(picture)
    assert list((tmp_path / "temporary").iterdir()) == []
    after = (tmp_path / "repository/digits/config.pbtxt").read_text()
    assert after.startswith("# Ours.\n")
    assert _DELAY in before
    assert _DELAY not in after
    assert _others(after) == _others(before)


def _others(text: str) -> Any:
    """Give what a configuration says beside what is searched."""
    config = parse(text)
    for field in FIELDS:
        config.ClearField(field)
    return config


def test_what_cannot_be_tuned_is_one_line(tmp_path: Path) -> None:
    """An unknown model ends with a line, its code, and exit code 1."""
    (tmp_path / "repository").mkdir()
    done = _tune(tmp_path, "flowers")
    assert done.returncode == 1
    assert "model_not_found" in done.stderr
    assert "Traceback" not in done.stderr
