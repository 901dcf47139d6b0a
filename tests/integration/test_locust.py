"""The mixed users of perf/locustfile.py, against a real gateway."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.gateway_process import GatewayProcess, running_gateway

pytestmark = pytest.mark.alone

_ROOT = Path(__file__).parents[2]
_FILE = _ROOT / "perf/locustfile.py"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("locust")
    with running_gateway(folder, "--demo") as running:
        yield running


def _locust(gateway: GatewayProcess, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "locust", "-f", str(_FILE), "--headless", "--only-summary"]
    # All users begin at once, and what one has begun when the time is up is waited for: a run has
    # a request of each kind, however slow the machine.
    length = ["-u", "20", "-r", "20", "-t", "2s", "--stop-timeout", "60"]
    return subprocess.run(
        [*command, *length, "--host", gateway.url, *options],
        capture_output=True,
        text=True,
        check=False,
    )


def test_mixed_users_are_served(gateway: GatewayProcess) -> None:
    """Every kind of request is made, none fails, and the exit code is 0."""
    done = _locust(gateway, "--max-p99-ms", "10000", "--max-error-share", "0")
    assert done.returncode == 0, done.stderr
    for name in ("run", "list", "register"):
        assert f" {name} " in done.stdout + done.stderr, name
    assert "locust-probe" in gateway.client.get("/api/v1/list").json()


def test_a_broken_threshold_fails_the_run(gateway: GatewayProcess) -> None:
    """A p99 above the threshold is named, and the exit code is 1."""
    done = _locust(gateway, "--max-p99-ms", "0.01")
    assert done.returncode == 1
    assert "p99 of run is" in done.stderr
