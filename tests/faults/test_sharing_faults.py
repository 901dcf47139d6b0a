"""Shared memory of a whole gateway: by each setting the same answers, and nothing left behind."""

import base64
import io
import re
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

from testbed.gateway_process import GatewayProcess, running_gateway
from tests.eventually import eventually
from tests.model_family import classifier_case

SHARED_MEMORY = Path("/dev/shm")
MODELS = {
    "raw": ((None, None, None, 3), {}),
    "prepared": ((None, 3, 8, 8), {"preprocessing": "imagenet"}),
}


class Sharing:
    """What a gateway's Triton says of shared memory, by its own interface."""

    def __init__(self, gateway: GatewayProcess) -> None:
        arguments = gateway.triton.cmdline()
        text = "\n".join(arguments)
        (port,) = re.findall(r"^--http-port[=\n](\d+)$", text, re.MULTILINE)
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers=gateway.triton_headers, trust_env=False
        )

    def regions(self) -> set[str]:
        with self._client as client:
            answer = client.get("/v2/systemsharedmemory/status")
        assert answer.status_code == 200, answer.text
        return {region["name"] for region in answer.json()}


def _encoded(form: str, seed: int) -> str:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (40 + seed, 61, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return base64.b64encode(buffer.getvalue()).decode()


IMAGES = [_encoded(form, seed) for seed, form in enumerate(("JPEG", "PNG", "JPEG", "BMP"))]


def _scores(gateway: GatewayProcess) -> dict[str, Any]:
    """Ask every model for every image, the usual way and with all its scores."""
    answers: dict[str, Any] = {}
    for name in MODELS:
        for number, image in enumerate(IMAGES):
            for query in ("", "?top_k=5"):
                path = f"/api/v1/run/{name}{query}"
                answer = gateway.client.post(path, json={"image": image})
                assert answer.status_code == 200, answer.text
                answers[f"{path} {number}"] = answer.json()
    return answers


def _names(pid: int) -> list[str]:
    return [path.name for path in SHARED_MEMORY.glob(f"onnx-gateway-{pid}-*")]


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sharing")


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, Any]:
    """The answers of a gateway that shares nothing."""
    with running_gateway(folder, environment={"SHARED_MEMORY": "off"}) as gateway:
        for name, (shape, parameters) in MODELS.items():
            model = classifier_case("m", shape, seed=len(name)).make().SerializeToString()
            answer = gateway.client.post(
                "/api/v1/register",
                params={"name": name, "load": "true", **parameters},
                content=model,
            )
            assert answer.status_code == 200, answer.text
        assert Sharing(gateway).regions() == set()
        return _scores(gateway)


def _is_loaded(gateway: GatewayProcess) -> bool:
    return gateway.client.get("/startupz").status_code == 200


async def test_a_killed_triton_is_given_new_memory(folder: Path, expected: dict[str, Any]) -> None:
    """Shared: the same answers; after SIGKILL of Triton too, in a new region; then all is gone."""
    with running_gateway(folder) as gateway:
        await eventually(lambda: _is_loaded(gateway))
        assert _scores(gateway) == expected
        (before,) = Sharing(gateway).regions()
        assert before.startswith(f"onnx-gateway-{gateway.process.pid}-")
        assert _names(gateway.process.pid) == []
        dead = gateway.triton
        dead.kill()
        psutil.wait_procs([dead], timeout=5)

        def answers() -> bool:
            return all(
                gateway.client.post(f"/api/v1/run/{name}", json={"image": IMAGES[0]}).is_success
                for name in MODELS
            )

        await eventually(answers)
        (after,) = Sharing(gateway).regions()
        assert after != before
        assert _scores(gateway) == expected
        assert Sharing(gateway).regions() == {after}
        processes = [gateway.triton, *gateway.stubs()]
        assert gateway.stop() == 0
    assert not any("memory_not_shared" in line for line in gateway.output)
    assert _names(gateway.process.pid) == []
    assert [process for process in processes if _lives(process)] == []


async def test_a_killed_gateway_leaves_no_memory(folder: Path, expected: dict[str, Any]) -> None:
    """
    One page to share: what does not fit in is sent. After SIGKILL nothing of it is left; a name
    that another one left, killed in the moment when it had one, is gone after a start.
    """
    dead = psutil.Popen(["true"])
    dead.wait()
    left = SHARED_MEMORY / f"onnx-gateway-{dead.pid}-0123456789abcdef"
    left.write_bytes(bytes(4096))
    gateway = GatewayProcess(folder, {"SHARED_MEMORY_BYTES": "4096"}, ())
    try:
        assert not left.exists()
        await eventually(lambda: _is_loaded(gateway))
        assert _scores(gateway) == expected
        assert len(Sharing(gateway).regions()) == 1
        processes = [gateway.triton, *gateway.stubs()]
        assert len(processes) > 1
    finally:
        gateway.kill()
        left.unlink(missing_ok=True)
    await eventually(lambda: not any(_lives(process) for process in processes))
    assert _names(gateway.process.pid) == []
