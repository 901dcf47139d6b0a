"""The gateway and the original server, side by side over the same folder of models."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from testbed.gateway_process import GatewayProcess, running_gateway
from tests.contract import original_server
from tests.contract.gate import Gate, open_gate
from tests.model_family import original_model


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for classes in (5, 8, 10):
        original_model(folder / f"model_{classes}.onnx", classes, seed=classes)
    (folder / "broken.onnx").write_bytes(b"this is no protobuf")
    return folder


@pytest.fixture(scope="session")
def gateway(
    models_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("gateway")
    with running_gateway(folder, environment={"MODELS_DIR": str(models_folder)}) as process:
        yield process


@pytest.fixture
def client(gateway: GatewayProcess) -> httpx.Client:
    return gateway.client


@pytest.fixture(scope="session")
def original(gateway: GatewayProcess, models_folder: Path) -> Iterator[httpx.Client]:
    # The gateway comes first and has to cope with it; the original lists whatever lies there.
    assert gateway.process.poll() is None
    (models_folder / "broken.onnx").unlink()
    program = Path(original_server.__file__)
    process = subprocess.Popen(
        [sys.executable, program, models_folder], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    port = int(process.stdout.readline())
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60.0, trust_env=False) as client:
        yield client
    process.terminate()
    process.wait()
    process.stdout.close()


@pytest.fixture(scope="session")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    with open_gate(tmp_path_factory.mktemp("gate")) as opened:
        yield opened
