"""What users see when a process dies: what was loaded is loaded again, with nobody asking."""

import base64
import contextlib
import io
import os
import pty
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image

from gateway.triton.quarantine import STRIKES_TO_QUARANTINE
from testbed.gateway_process import GatewayProcess, running_gateway
from tests.eventually import eventually
from tests.model_family import original_model

RECOVERY_LIMIT_S = 15.0


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("first", "second"):
        original_model(folder / f"{name}.onnx", 10, seed=len(name))
    return folder


@pytest.fixture
def gateway(tmp_path: Path, models: Path) -> Iterator[GatewayProcess]:
    with running_gateway(tmp_path, environment={"MODELS_DIR": str(models)}) as process:
        process.client.post("/api/v1/load", params={"name": "first"})
        yield process


def _body() -> dict[str, str]:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), (200, 30, 90)).save(buffer, "PNG")
    return {"image": base64.b64encode(buffer.getvalue()).decode()}


def _ask(client: httpx.Client, name: str = "first") -> httpx.Response:
    return client.post(f"/api/v1/run/{name}", json=_body())


def _until_answered(client: httpx.Client, expected: bytes) -> tuple[float, set[int]]:
    """Ask twenty times a second until the right answer comes; return the time and the statuses."""
    began_s, seen = time.monotonic(), set()
    tick = threading.Event()
    while time.monotonic() - began_s < RECOVERY_LIMIT_S:
        answer = _ask(client)
        seen.add(answer.status_code)
        if answer.status_code == 200:
            assert answer.content == expected
            return time.monotonic() - began_s, seen
        tick.wait(0.05)
    raise AssertionError(f"no answer within {RECOVERY_LIMIT_S} s, only {seen}")


def _lives(process: psutil.Process) -> bool:
    """Whether it runs; one that is dead and waits for init to collect it does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _shared_memory(gateway: GatewayProcess) -> list[str]:
    """The regions of the gateway's Triton: the prefix is in its command line."""
    argument = next(a for a in gateway.triton.cmdline() if "shm-region-prefix-name=" in a)
    return sorted(str(p) for p in Path("/dev/shm").glob(argument.rsplit("=", 1)[1] + "*"))


def test_a_killed_triton_comes_back_with_its_loads(gateway: GatewayProcess) -> None:
    """After SIGKILL of tritonserver callers hear 503 with Retry-After, then the right answer."""
    expected = _ask(gateway.client).content
    dead = gateway.triton
    dead.kill()
    psutil.wait_procs([dead], timeout=5)
    took_s, seen = _until_answered(gateway.client, expected)
    assert took_s < RECOVERY_LIMIT_S
    assert seen <= {200, 503}
    assert gateway.triton.pid != dead.pid


def test_a_killed_backend_process_comes_back(gateway: GatewayProcess) -> None:
    """After SIGKILL of a stub, which Triton itself never restarts, every request is answered."""
    expected = _ask(gateway.client).content
    for stub in gateway.stubs():
        stub.kill()
    _, seen = _until_answered(gateway.client, expected)
    assert seen <= {200, 503}
    assert {_ask(gateway.client).content for _ in range(8)} == {expected}


def test_a_halted_backend_process_is_replaced(gateway: GatewayProcess) -> None:
    """A stub under SIGSTOP is taken for dead before Triton can trip over it."""
    expected = _ask(gateway.client).content
    pids = {stub.pid for stub in gateway.stubs()}
    triton = gateway.triton.pid
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    _until_answered(gateway.client, expected)
    assert {_ask(gateway.client).content for _ in range(8)} == {expected}
    assert gateway.triton.pid == triton


def test_a_killed_gateway_leaves_nothing_and_forgets_nothing(tmp_path: Path, models: Path) -> None:
    """After SIGKILL and a new start: no orphan, and the same models are loaded."""
    environment = {"MODELS_DIR": str(models)}
    first = GatewayProcess(tmp_path, environment, ())
    first.client.post("/api/v1/load", params={"name": "first"})
    expected = _ask(first.client).content
    orphans = [first.triton, *first.stubs()]
    first.kill()
    with running_gateway(tmp_path, environment=environment) as second:
        assert [orphan for orphan in orphans if _lives(orphan)] == []
        _until_answered(second.client, expected)
        assert _ask(second.client, "second").status_code == 409
        regions = _shared_memory(second)
    assert not [region for region in regions if Path(region).exists()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_under_load_fails_no_admitted_request(
    tmp_path: Path, models: Path, number: signal.Signals
) -> None:
    """SIGINT or SIGTERM: admitted requests are answered, the exit code is 0, nothing is left."""
    with running_gateway(tmp_path, environment={"MODELS_DIR": str(models)}) as gateway:
        gateway.client.post("/api/v1/load", params={"name": "first"})
        processes = [gateway.triton, *gateway.stubs()]
        regions = _shared_memory(gateway)
        assert regions
        statuses: list[int] = []
        enough = threading.Event()

        def keep_asking() -> None:
            with httpx.Client(base_url=gateway.url, timeout=30, trust_env=False) as client:
                while True:
                    try:
                        statuses.append(_ask(client).status_code)
                    except httpx.TransportError:
                        return  # refused or closed before it was admitted
                    if len(statuses) > 50:
                        enough.set()

        callers = [threading.Thread(target=keep_asking) for _ in range(4)]
        for caller in callers:
            caller.start()
        assert enough.wait(30)
        code = gateway.stop(number)
        for caller in callers:
            caller.join()
    assert code == 0
    assert set(statuses) <= {200, 503}
    assert [process for process in processes if _lives(process)] == []
    assert not [region for region in regions if Path(region).exists()]


def test_a_taken_port_is_one_clear_line(gateway: GatewayProcess, tmp_path: Path) -> None:
    """The gateway's own port in use: exit code 1 and what to do, before anything is started."""
    port = gateway.url.rsplit(":", 1)[1]
    folder = tmp_path / "another"
    folder.mkdir()
    with pytest.raises(AssertionError, match=f"Cannot listen on 127.0.0.1:{port}.*PORT=3001"):
        GatewayProcess(folder, {"PORT": port}, ())


def test_a_locked_database_stops_changes_but_not_answers(
    gateway: GatewayProcess, tmp_path: Path
) -> None:
    """While the database is held by another, `run` goes on, `load` answers 503; then it heals."""
    expected = _ask(gateway.client).content
    intruder = sqlite3.connect(tmp_path / "var/gateway.db", isolation_level=None)
    intruder.execute("BEGIN EXCLUSIVE")
    try:
        assert _ask(gateway.client).content == expected
        refused = gateway.client.post("/api/v1/load", params={"name": "second"})
        assert refused.status_code == 503
        assert refused.json()["code"] == "store_unavailable"
        assert "retry-after" in refused.headers
    finally:
        intruder.execute("ROLLBACK")
        intruder.close()
    assert gateway.client.post("/api/v1/load", params={"name": "second"}).content == b"200"


def test_ctrl_c_under_make_is_an_orderly_end(tmp_path: Path) -> None:
    """Ctrl-C in a terminal under `make run` ends the gateway in order, and make with 0."""
    checkout = Path(__file__).parents[2]
    controller, terminal = pty.openpty()
    environment = {
        **os.environ,
        "PORT": "0",
        "DATA_DIR": str(tmp_path / "var"),
        "MODEL_REPOSITORY": str(tmp_path / "repository"),
    }
    process = subprocess.Popen(
        ["setsid", "--wait", "--ctty", "make", "run"],
        cwd=checkout,
        env=environment,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    printed = b""
    while b"Ready:" not in printed:
        printed += os.read(controller, 4096)
    os.write(controller, b"\x03")
    with contextlib.suppress(OSError):  # the terminal's last holder is gone
        while chunk := os.read(controller, 4096):
            printed += chunk
    os.close(controller)
    assert process.wait(30) == 0, printed.decode(errors="replace")


async def test_a_version_that_keeps_dying_is_put_in_quarantine(
    tmp_path: Path, models: Path
) -> None:
    """Three deaths with no answer in between: kept out and named; a load gives a new chance."""
    environment = {"MODELS_DIR": str(models), "PROBE_INTERVAL_S": "1000"}
    with running_gateway(tmp_path, environment=environment) as gateway:

        def loaded() -> int:
            return sum('"event": "loaded"' in line for line in gateway.output)

        gateway.client.post("/api/v1/load", params={"name": "first"})
        for death in range(STRIKES_TO_QUARANTINE):
            await eventually(lambda loads=death + 1: loaded() >= loads, within_s=60)
            for stub in gateway.stubs():
                with contextlib.suppress(psutil.NoSuchProcess):
                    stub.kill()

        def quarantined() -> bool:
            answer = _ask(gateway.client)
            return answer.status_code == 503 and answer.json()["code"] == "model_quarantined"

        await eventually(quarantined, within_s=60)
        assert gateway.line_with("quarantined", "first")
        assert gateway.client.post("/api/v1/load", params={"name": "second"}).content == b"200"
        assert _ask(gateway.client, "second").status_code == 200
        assert gateway.client.post("/api/v1/load", params={"name": "first"}).content == b"200"
        assert _ask(gateway.client).status_code == 200
