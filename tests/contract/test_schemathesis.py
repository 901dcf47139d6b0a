"""The OpenAPI document, held to by requests that are made from it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.demo import FIRST_VERSION
from testbed.gateway_process import GatewayProcess, running_gateway

_KEY = "openapi-" + "k" * 32
_WITHIN_S = 300


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("openapi")
    with running_gateway(folder, environment={"GATEWAY_ADMIN_KEY": _KEY}) as process:
        process.client.headers["Authorization"] = f"Bearer {_KEY}"
        process.register("digits", FIRST_VERSION.read_bytes(), load="true")
        yield process


@pytest.mark.timeout(_WITHIN_S + 60)
def test_requests_made_from_the_document_find_nothing(
    gateway: GatewayProcess, tmp_path: Path
) -> None:
    """
    By every check, from a fixed seed: answers are as the document says, what it allows is taken,
    what it does not is refused. `schemathesis.toml` says where a schema cannot say it all.
    """
    report = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            *("--config-file", str(Path(__file__).with_name("schemathesis.toml"))),
            *("run", f"{gateway.url}/openapi.json", "--checks", "all", "--seed", "15"),
            *("--header", f"Authorization: Bearer {_KEY}", "--generation-database", "none"),
            *("--phases", "examples,coverage,fuzzing", "--max-examples", "3"),
            *("--request-timeout", "60", "--no-color"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=_WITHIN_S,
    )
    assert report.returncode == 0, report.stdout[-6000:] + report.stderr[-2000:]
