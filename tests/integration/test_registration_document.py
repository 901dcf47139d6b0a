"""docs/registration.md: every command in it does what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from testbed.gateway_process import running_gateway
from tests.model_family import original_model

_DOCUMENT = Path(__file__).parents[2] / "docs/registration.md"
_BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_every_command_of_the_document_works(tmp_path: Path) -> None:
    """The blocks run one after the other, in one folder, against one gateway; none fails."""
    work = tmp_path / "work"
    work.mkdir()
    original_model(work / "model.onnx", 3)
    (work / "labels.txt").write_text("rose\ndaisy\ntulip\n")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(work / "photo.jpg")
    blocks = _BLOCK.findall(_DOCUMENT.read_text())
    assert len(blocks) >= 7
    programs = str(Path(sys.executable).parent)
    with running_gateway(tmp_path) as gateway:
        environment = {
            **os.environ,
            "GATEWAY_URL": gateway.url,
            "PATH": f"{programs}:{os.environ['PATH']}",
        }
        for language, text in blocks:
            command = ["bash", "-euc", text] if language == "bash" else [sys.executable, "-c", text]
            done = subprocess.run(
                command, cwd=work, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        left = ["flowers-as-exported", "flowers-own", "flowers-unit"]
        assert gateway.client.get("/api/v1/list").json() == left
