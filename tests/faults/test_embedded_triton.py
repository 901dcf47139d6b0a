"""The embedded Triton when things are killed, halted, taken: what its supervision makes of it."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from gateway.background.backoff import restart_delay_s
from gateway.triton.embedded import AlreadyRunning, EmbeddedOptions, EmbeddedTriton, Ports
from gateway.triton.embedded.layout import shm_prefix
from gateway.triton.embedded.orphans import SHARED_MEMORY
from gateway.triton.embedded.ports import free_ports
from gateway.triton.embedded.stubs import GONE, ZOMBIE, process_state
from gateway.triton.endpoint import TritonEndpoint
from tests.running_triton import (
    RunningTriton,
    matrix_products,
    matrix_products_config,
    running_triton,
    tiny_classifier,
    tiny_config,
)

IMAGE = np.ones((1, 4, 4, 3), np.float32)
ROOT = Path(__file__).parents[2]


class Witness:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.down: list[str] = []
        self.up: asyncio.Queue[TritonEndpoint] = asyncio.Queue()
        self.lost: asyncio.Queue[tuple[str, int, str]] = asyncio.Queue()

    def went_down(self, reason: str) -> None:
        self.down.append(reason)

    async def came_up(self, endpoint: TritonEndpoint) -> None:
        self.up.put_nowait(endpoint)

    def stub_lost(self, model: str, version: int, detail: str) -> None:
        self.lost.put_nowait((model, version, detail))


def prefix_of(running: RunningTriton) -> str:
    return shm_prefix(running.repository.parent / "var" / "triton")


def traces(prefix: str) -> list[str]:
    """Return what is left of a server: its processes and its shared memory."""
    processes = [
        f"pid {process.pid}"
        for process in psutil.process_iter(["cmdline"])
        if any(prefix in argument for argument in process.info["cmdline"] or ())
    ]
    return processes + [path.name for path in SHARED_MEMORY.glob(f"{prefix}*")]


def command_line_for_others(pid: int) -> bytes:
    """Read a process's command line as another user, where root can be one."""
    command, other = ["cat", f"/proc/{pid}/cmdline"], "nobody" if os.getuid() == 0 else None
    return subprocess.run(command, capture_output=True, check=True, user=other).stdout


def stub_pid(running: RunningTriton, model: str) -> int:
    for child in psutil.Process(running.embedded.pid).children():
        arguments = child.cmdline() if child.status() != psutil.STATUS_ZOMBIE else []
        if any(f"/{model}/" in argument for argument in arguments):
            return child.pid
    raise AssertionError(f"no stub of {model}")


async def until(condition: Callable[[], bool], timeout_s: float) -> float:
    """Wait for `condition`; return how long it took, in seconds."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < timeout_s, "did not come true in time"
        await asyncio.sleep(0.02)
    return time.monotonic() - start


async def serve(running: RunningTriton, name: str) -> None:
    if not (running.repository / name).exists():
        running.add(name, tiny_classifier())
    await running.load(name, tiny_config())
    assert (await running.infer(name, {"x": IMAGE}))["y"].shape == (1, 5)


async def test_killed_server_is_back(tmp_path: Path) -> None:
    """SIGKILL of tritonserver: told, restarted at once on the same ports, nothing of it left."""
    witness = Witness()
    async with running_triton(tmp_path, witness) as running:
        await serve(running, "m")
        before, old_pid = running.endpoint, running.embedded.pid
        old_regions = {path.name for path in SHARED_MEMORY.glob(f"{prefix_of(running)}*")}
        assert old_pid is not None
        assert old_regions
        start = time.monotonic()
        os.kill(old_pid, signal.SIGKILL)
        endpoint = await asyncio.wait_for(witness.up.get(), 10)
        took_s = time.monotonic() - start
        assert took_s < 2, took_s
        assert witness.down == ["killed by SIGKILL"]
        assert running.embedded.pid not in (None, old_pid)
        assert endpoint == running.endpoint
        assert (endpoint.http_url, endpoint.grpc_url) == (before.http_url, before.grpc_url)
        assert endpoint.admin_key != before.admin_key
        assert old_regions.isdisjoint(traces(prefix_of(running)))
        await serve(running, "m")
        assert witness.lost.empty(), "the stubs of a dead server are no event of their own"


async def test_halted_server_is_replaced(tmp_path: Path) -> None:
    """SIGSTOP of tritonserver for more than a second: killed and restarted."""
    witness = Witness()
    async with running_triton(tmp_path, witness) as running:
        assert running.embedded.pid is not None
        os.kill(running.embedded.pid, signal.SIGSTOP)
        await asyncio.wait_for(witness.up.get(), 10)
        assert "halted" in witness.down[0]
        await serve(running, "m")


async def test_killed_stub_is_told(tmp_path: Path) -> None:
    """SIGKILL of a stub: told once, with model and version; the server and other models go on."""
    witness = Witness()
    async with running_triton(tmp_path, witness) as running:
        await serve(running, "a")
        await serve(running, "b")
        server = running.embedded.pid
        os.kill(stub_pid(running, "a"), signal.SIGKILL)
        model, version, detail = await asyncio.wait_for(witness.lost.get(), 2)
        assert (model, version) == ("a", 1)
        assert "SIGKILL" in detail
        assert (await running.infer("b", {"x": IMAGE}))["y"].shape == (1, 5)
        await running.load("a", tiny_config(parameters={"repair": {"string_value": "1"}}))
        assert (await running.infer("a", {"x": IMAGE}))["y"].shape == (1, 5)
        assert running.embedded.pid == server
        assert witness.lost.empty()
        assert not witness.down


async def test_halted_stub_is_killed(tmp_path: Path) -> None:
    """SIGSTOP of a stub: killed before it can take the server down, and told as lost."""
    witness = Witness()
    async with running_triton(tmp_path, witness) as running:
        await serve(running, "a")
        await serve(running, "b")
        pid = stub_pid(running, "a")
        os.kill(pid, signal.SIGSTOP)
        model, _, detail = await asyncio.wait_for(witness.lost.get(), 3)
        assert model == "a"
        assert "halted" in detail
        await until(lambda: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, 1)
        assert (await running.infer("b", {"x": IMAGE}))["y"].shape == (1, 5)
        assert not witness.down


async def test_unload_is_no_loss(tmp_path: Path) -> None:
    """A stub that leaves because its model is unloaded, reloaded or refused is not told as lost."""
    witness = Witness()
    async with running_triton(tmp_path, witness) as running:
        await serve(running, "m")
        await running.load("m", tiny_config(parameters={"again": {"string_value": "1"}}))
        with pytest.raises(Exception, match="dimensions"):
            await running.load("m", tiny_config(classes=7))
        old = stub_pid(running, "m")
        await running.unload("m")
        await until(lambda: not psutil.pid_exists(old), 10)
        # Two looks of the watch later it would have been told.
        await asyncio.sleep(0.5)
        assert witness.lost.empty()


async def test_stop_leaves_nothing(tmp_path: Path) -> None:
    """A stop leaves no process and no region; a second does nothing."""
    async with running_triton(tmp_path) as running:
        await serve(running, "m")
        prefix = prefix_of(running)
        assert traces(prefix)
        await running.close()
        start = time.monotonic()
        await running.embedded.stop()
        assert time.monotonic() - start < 8
        assert not traces(prefix)
        assert not list((tmp_path / "var" / "triton" / "instances").iterdir())
        await running.embedded.stop()


async def test_dies_with_the_parent(tmp_path: Path) -> None:
    """SIGKILL of the gateway takes server and stubs along; the next start sweeps the regions."""
    (tmp_path / "models").mkdir()
    seeded = RunningTriton(EmbeddedTriton(EmbeddedOptions(tmp_path, tmp_path)), tmp_path / "models")
    seeded.add("m", tiny_classifier())
    script = tmp_path / "parent.py"
    script.write_text(
        "import asyncio, uvloop\n"
        "from pathlib import Path\n"
        "from tests.running_triton import running_triton, tiny_config\n"
        "async def main():\n"
        f"    async with running_triton(Path({str(tmp_path)!r})) as running:\n"
        "        await running.load('m', tiny_config())\n"
        "        print('loaded', flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "uvloop.run(main())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = await asyncio.create_subprocess_exec(
        sys.executable, script, stdout=asyncio.subprocess.PIPE, env=environment, cwd=tmp_path
    )
    assert parent.stdout is not None
    while (await asyncio.wait_for(parent.stdout.readline(), 30)).strip() != b"loaded":
        assert not parent.stdout.at_eof()
    prefix = shm_prefix(tmp_path / "var" / "triton")
    assert len([trace for trace in traces(prefix) if trace.startswith("pid")]) == 2
    parent.kill()
    await parent.wait()
    await until(lambda: not any(trace.startswith("pid") for trace in traces(prefix)), 2)
    left = traces(prefix)
    async with running_triton(tmp_path) as running:
        assert set(left).isdisjoint(traces(prefix))
        await serve(running, "m")
    assert not traces(prefix)


async def test_orphaned_stub_is_swept(tmp_path: Path) -> None:
    """A process that carries our prefix, and a region of it, are gone after the next start."""
    root = tmp_path / "var" / "triton"
    root.mkdir(parents=True)
    name = f"{shm_prefix(root)}left"
    left_behind = '"$0" -c "import time; time.sleep(60)" "$1" > /dev/null & echo $!'
    shell = await asyncio.create_subprocess_exec(
        "sh", "-c", left_behind, sys.executable, name, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await shell.communicate()
    orphan = int(said)
    (SHARED_MEMORY / name).write_bytes(b"0" * 4096)
    async with running_triton(tmp_path):
        assert process_state(orphan)[0] in (GONE, ZOMBIE)
        assert not (SHARED_MEMORY / name).exists()


async def test_taken_ports(tmp_path: Path) -> None:
    """Ports in use by a stranger are left to it; others are taken, also after a restart."""
    witness = Witness()
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = stranger.getsockname()[1]
        async with running_triton(tmp_path, witness, ports=Ports(taken, taken, taken)) as running:
            first = running.endpoint
            assert str(taken) not in f"{first.http_url} {first.grpc_url} {first.metrics_url}"
            await serve(running, "m")


async def test_lost_race_for_a_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that is taken between the choice and the start costs one attempt, not the start."""
    starter = "gateway.triton.embedded.starter.free_ports"
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = stranger.getsockname()[1]
        choices = iter([replace(free_ports(Ports()), http=taken)])
        monkeypatch.setattr(starter, lambda ports: next(choices, free_ports(ports)))
        async with running_triton(tmp_path) as running:
            assert running.endpoint.http_url != f"127.0.0.1:{taken}"
            await serve(running, "m")


async def test_one_server_for_a_directory(tmp_path: Path) -> None:
    """A second gateway on the same data directory is refused; the first goes on."""
    async with running_triton(tmp_path) as running:
        second = EmbeddedTriton(EmbeddedOptions(running.repository, tmp_path / "var"))
        with pytest.raises(AlreadyRunning, match="DATA_DIR"):
            await second.start()
        await serve(running, "m")


async def test_crash_loop_backs_off(tmp_path: Path) -> None:
    """A server that keeps dying young is restarted at once, then after growing delays."""
    witness = Witness()
    async with running_triton(tmp_path, witness) as running:
        pauses = []
        for _ in range(3):
            assert running.embedded.pid is not None
            start = time.monotonic()
            os.kill(running.embedded.pid, signal.SIGKILL)
            await asyncio.wait_for(witness.up.get(), 10)
            pauses.append(time.monotonic() - start)
        assert pauses[0] < restart_delay_s(2) + 1
        assert restart_delay_s(2) <= pauses[1] < restart_delay_s(3) + 1
        assert restart_delay_s(3) <= pauses[2] < restart_delay_s(4) + 1


async def test_calls_want_the_secret(tmp_path: Path) -> None:
    """Without the secret, nobody on the machine asks, loads, lists or registers shared memory."""
    async with running_triton(tmp_path) as running, httpx.AsyncClient() as client:
        await serve(running, "m")
        client.base_url = f"http://{running.endpoint.http_url}"
        calls = [
            ("POST", "/v2/repository/index"),
            ("POST", "/v2/models/m/infer"),
            ("POST", "/v2/models/m/versions/1/infer"),
            ("GET", "/v2"),
            ("GET", "/v2/models/m"),
            ("GET", "/v2/models/m/config"),
            ("GET", "/v2/models/m/stats"),
            ("GET", "/v2/models/stats"),
            ("GET", "/v2/systemsharedmemory/status"),
            ("GET", "/v2/trace/setting"),
            ("GET", "/v2/logging"),
            ("POST", "/v2/repository/models/m/load"),
            ("POST", "/v2/repository/models/m/unload"),
        ]
        for method, path in calls:
            refused = await client.request(method, path)
            assert refused.status_code == 403, (path, refused.text)
            headers = {"admin-key": "*" * 32}
            assert (await client.request(method, path, headers=headers)).status_code == 403
        for method, path in calls:
            answer = await client.request(method, path, headers=running.endpoint.admin_headers)
            assert answer.status_code != 403, (path, answer.text)
        client_ = await running.grpc()
        with pytest.raises(Exception, match="UNAVAILABLE"):
            await client_.get_model_repository_index()
        assert (
            await client.get(f"http://{running.endpoint.metrics_url}/metrics")
        ).status_code == 200


async def test_the_secret_is_not_for_other_users(tmp_path: Path) -> None:
    """Neither `ps` nor the file that holds it shows it to anybody but the owner."""
    async with running_triton(tmp_path) as running:
        await serve(running, "m")
        secret = running.endpoint.admin_key
        assert secret
        server = psutil.Process(running.embedded.pid)
        group = [server, *server.children(recursive=True)]
        assert len(group) > 1
        kept = tmp_path / "var/triton/admin-key"
        assert kept.read_text() == secret
        assert kept.stat().st_mode & 0o777 == 0o600
        assert kept.parent.stat().st_mode & 0o777 == 0o700
        for process in group:
            shown = command_line_for_others(process.pid)
            assert len(shown) > 100
            assert secret.encode() not in shown


async def test_stop_lets_requests_end(tmp_path: Path) -> None:
    """A request in flight when the stop comes is answered."""
    size = 1024
    async with running_triton(tmp_path) as running:
        running.add("slow", matrix_products(20, size))
        await running.load("slow", matrix_products_config(intra_op_thread_count=1))
        one = {"x": np.ones(1, np.float32)}
        start = time.monotonic()
        await running.infer("slow", one)
        run_s = time.monotonic() - start
        request = asyncio.create_task(running.infer("slow", one))
        await asyncio.sleep(run_s / 4)
        assert not request.done()
        await running.embedded.stop()
        answer = await asyncio.wait_for(request, 1)
        np.testing.assert_allclose(answer["y"], 1 / size, rtol=1e-3)
        assert not traces(prefix_of(running))
