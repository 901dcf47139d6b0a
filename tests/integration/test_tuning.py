"""`gateway tune`, as it is typed, beside a gateway that serves the model."""

import base64
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import psutil

from gateway.settings import Settings
from gateway.tuning.candidates import read_candidate
from gateway.tuning.records import read_record, write_candidate
from gateway.tuning.subject import read_subject
from tests.eventually import eventually
from tests.gateway_process import running_gateway

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "tools/demo/digits/sample-7.png"
SHARED_MEMORY = Path("/dev/shm")


def _tune(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", "tune", *arguments],
        cwd=folder,
        env={
            **{k: v for k, v in os.environ.items() if k in {"PATH", "HOME", "LANG"}},
            "DATA_DIR": str(folder / "var"),
            "MODEL_REPOSITORY": str(folder / "repository"),
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_tuning_the_demo_model(tmp_path: Path) -> None:
    """Real candidates are measured, told as JSON and drawn; nothing is written or left behind."""
    shutil.copytree(ROOT / "model_repository", tmp_path / "repository")
    before = (tmp_path / "repository/digits/config.pbtxt").read_text()
    regions = set(SHARED_MEMORY.iterdir())
    picture = tmp_path / "tune.svg"
    done = _tune(
        tmp_path,
        *("digits", "--budget-s", "6", "--callers", "1,4", "--image", str(SAMPLE)),
        *("--json", "--plot", str(picture)),
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["model"] == "digits"
    texts = {candidate["text"] for candidate in told["candidates"]}
    assert len(texts) >= 2
    for candidate in [*told["candidates"], *told["final"]]:
        assert [found["callers"] for found in candidate["by_callers"]] == [1, 4]
        assert all(found["rate_per_s"] > 0 < found["p99_s"] for found in candidate["by_callers"])
    assert [candidate["rounds"] >= 3 for candidate in told["final"]] == [True] * len(told["final"])
    assert told["failed"] == []
    ET.parse(picture)
    assert (tmp_path / "repository/digits/config.pbtxt").read_text() == before
    assert not (tmp_path / "var").exists()
    ours = {path.name for path in set(SHARED_MEMORY.iterdir()) - regions}
    assert not [name for name in ours if name.startswith(f"onnx-gateway-{os.getpid()}")]
    assert not [
        process
        for process in psutil.Process().children(recursive=True)
        if process.name() == "tritonserver"
    ]


def test_what_cannot_be_tuned_is_one_line(tmp_path: Path) -> None:
    """An unknown model ends with a line, its code, and exit code 1."""
    (tmp_path / "repository").mkdir()
    done = _tune(tmp_path, "flowers")
    assert done.returncode == 1
    assert "model_not_found" in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_running_gateway_takes_what_is_written(tmp_path: Path) -> None:
    """What is written is loaded by the gateway that serves the model, which answers all along."""
    settings = Settings(data_dir=tmp_path / "var", model_repository=tmp_path / "repository")
    shutil.copytree(ROOT / "model_repository", settings.model_repository)
    with running_gateway(tmp_path, "--demo") as gateway:
        record = await read_record(settings, settings.model_repository, "digits")
        subject = read_subject(
            settings.model_repository,
            "digits",
            record,
            version=None,
            image=SAMPLE.read_bytes(),
            shape=None,
            max_image_pixels=1_000_000,
        )
        image = {"image": base64.b64encode(SAMPLE.read_bytes()).decode()}
        present = read_candidate(subject.config)
        wanted = replace(
            present, instances=present.instances + 2, spinning=False, queue_delay_us=200
        )
        written = await write_candidate(settings, settings.model_repository, subject, wanted)
        assert written.versions == (1,)

        def answers_with_more() -> bool:
            answer = gateway.client.post("/api/v1/run/digits", json=image)
            assert answer.json() == {"category": "07"}, answer.text
            return len(gateway.stubs()) == wanted.instances

        await eventually(answers_with_more)
