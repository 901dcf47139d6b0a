"""
Several worker processes behind one port, as their users see them: they are one gateway, also when
one of them is killed.
"""

import asyncio
import base64
import contextlib
import io
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image

from gateway.demo import FIRST_VERSION, publish_demo
from testbed.gateway_process import GatewayProcess, running_gateway
from tests.eventually import eventually

pytestmark = pytest.mark.alone

_KNOWN_WITHIN_S = 0.1
_ENVIRONMENT = {"WORKERS": "2", "METRICS_FLUSH_INTERVAL_S": "0.5", "MAX_VALIDATIONS": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Yield a folder whose repository holds two versions of `digits`."""
    folder = tmp_path_factory.mktemp("workers")
    digits = folder / "repository" / "digits"
    publish_demo(digits.parent)
    shutil.copytree(digits / "1", digits / "100")
    return folder


@pytest.fixture(scope="module")
def gateway(folder: Path) -> Iterator[GatewayProcess]:
    with running_gateway(folder, environment=_ENVIRONMENT) as up:
        for version in ("1", "100"):
            answer = up.client.post("/api/v1/load", params={"name": "digits", "version": version})
            assert answer.content == b"200", answer.text
        yield up


@pytest.fixture
def clients(gateway: GatewayProcess) -> Iterator[dict[str, httpx.Client]]:
    """Yield a client for each worker, with a connection to it that stays."""
    with contextlib.ExitStack() as stack:
        found: dict[str, httpx.Client] = {}
        for _ in range(40):
            client = httpx.Client(base_url=gateway.url, timeout=60, trust_env=False)
            stack.enter_context(client)
            found.setdefault(client.get("/livez").headers["X-Gateway-Worker"], client)
            if len(found) == 2:
                break
        assert set(found) == {"1", "2"}
        yield found


def _image() -> str:
    encoded = io.BytesIO()
    Image.new("RGB", (28, 28), (9, 9, 9)).save(encoded, "PNG")
    return base64.b64encode(encoded.getvalue()).decode()


_BODY = {"image": _image()}


def _run(client: httpx.Client, **asked: str) -> httpx.Response:
    return client.post("/api/v1/run/digits", params=asked, json=_BODY)


def _workers(gateway: GatewayProcess) -> dict[str, psutil.Process]:
    """Find the worker processes, by their number."""
    return {
        process.cmdline()[-3]: process
        for process in psutil.Process(gateway.process.pid).children()
        if "worker" in process.cmdline()
    }


def _counted(gateway: GatewayProcess, endpoint: str = "run") -> float:
    """Read from /metrics, at whichever worker, how many requests were answered."""
    text = httpx.get(f"{gateway.url}/metrics", timeout=30, trust_env=False).text
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line.startswith("gateway_requests_total{") and f'endpoint="{endpoint}"' in line
    )


def _lives(process: psutil.Process) -> bool:
    """Whether it runs; one that is dead and waits for init to collect it does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _regions(processes: Iterable[psutil.Process]) -> list[str]:
    """Shared memory of a gateway with these processes, which are its own, that has a name."""
    return [
        path.name
        for process in processes
        for path in Path("/dev/shm").glob(f"onnx-gateway-{process.pid}-*")
    ]


_ANSWERS_A_CONNECTION = 100


class Callers:
    """Callers that never stop asking; `heard` counts (worker, status or name of the error)."""

    def __init__(self, url: str, **asked: str) -> None:
        self.heard: Counter[tuple[str, int | str]] = Counter()
        self._url = url
        self._asked = asked
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(4)]
        for thread in self._threads:
            thread.start()

    def _call(self) -> None:
        while not self._stop.is_set():
            worker = ""
            with httpx.Client(base_url=self._url, timeout=30, trust_env=False) as client:
                try:
                    # Not for ever on one connection: which worker has fewest is told in intervals,
                    # and four that come at once may all be one worker's.
                    for _ in range(_ANSWERS_A_CONNECTION):
                        if self._stop.is_set():
                            break
                        answer = _run(client, **self._asked)
                        worker = answer.headers["X-Gateway-Worker"]
                        self.heard[worker, answer.status_code] += 1
                except httpx.ConnectError:
                    return
                except httpx.TransportError as error:
                    self.heard[worker, type(error).__name__] += 1

    @property
    def answered(self) -> int:
        """How many were answered with 200."""
        return sum(count for (_, what), count in self.heard.items() if what == 200)

    def stop(self) -> None:
        """Stop asking."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


@contextlib.contextmanager
def _calling(url: str, **asked: str) -> Iterator[Callers]:
    callers = Callers(url, **asked)
    try:
        yield callers
    finally:
        callers.stop()


def test_connections_are_shared_evenly(gateway: GatewayProcess) -> None:
    """Ten connections that are opened one after the other: five for each worker."""
    with contextlib.ExitStack() as stack:
        seen = Counter(
            stack.enter_context(httpx.Client(base_url=gateway.url, trust_env=False))
            .get("/livez")
            .headers["X-Gateway-Worker"]
            for _ in range(10)
        )
    assert sorted(seen.values()) == [5, 5]


def test_it_says_ready_once_and_logs_say_which_worker(gateway: GatewayProcess) -> None:
    """One record, when all workers are ready; each record carries its worker."""
    assert sum('"event": "ready"' in line for line in gateway.output) == 1
    with httpx.Client(base_url=gateway.url, trust_env=False) as client:
        answer = client.post("/api/v1/run/nobody", json=_BODY)
    worker, request_id = (answer.headers[name] for name in ("X-Gateway-Worker", "X-Request-ID"))
    assert f'"worker": {worker}' in gateway.line_with(request_id)


def test_a_change_is_known_to_all_when_it_is_answered(clients: dict[str, httpx.Client]) -> None:
    """Fifty moves of an alias at one worker; the other follows each at once, every time."""
    took_s = []
    for turn in range(50):
        changer, asker = clients[str(1 + turn % 2)], clients[str(2 - turn % 2)]
        version = (1, 100)[turn // 2 % 2]
        moved = changer.put("/api/v1/models/digits/aliases/moving", json={"version": version})
        assert moved.status_code == 200, moved.text
        answered_s = time.monotonic()
        while (answer := _run(asker, alias="moving")).headers["X-Model-Version"] != str(version):
            assert time.monotonic() - answered_s < _KNOWN_WITHIN_S
        assert answer.status_code == 200
        took_s.append(time.monotonic() - answered_s)
    assert moved.elapsed.total_seconds() < 1.0


def test_a_load_is_known_to_all_when_it_is_answered(clients: dict[str, httpx.Client]) -> None:
    """After 200 of load the other worker answers 200, after 200 of unload 409, at once."""
    for turn in range(2):
        changer, asker = clients[str(1 + turn % 2)], clients[str(2 - turn % 2)]
        target = {"name": "digits", "version": "100"}
        assert changer.post("/api/v1/unload", params=target).content == b"200"
        assert _run(asker, version="100").status_code == 409
        assert changer.post("/api/v1/load", params=target).content == b"200"
        assert _run(asker, version="100").status_code == 200
        assert _run(changer, version="100").status_code == 200


def test_a_change_under_load_has_no_moment_in_between(
    gateway: GatewayProcess, clients: dict[str, httpx.Client]
) -> None:
    """While a version goes and comes, every worker's callers hear "loaded" or "not loaded" only."""
    with _calling(gateway.url, version="100") as callers:
        for _ in range(4):
            for change in ("unload", "load"):
                target = {"name": "digits", "version": "100"}
                assert clients["1"].post(f"/api/v1/{change}", params=target).content == b"200"
    assert {what for _, what in callers.heard} == {200, 409}


def test_what_is_counted_adds_up(gateway: GatewayProcess, clients: dict[str, httpx.Client]) -> None:
    """/metrics and the stored metrics tell at either worker what both have answered."""

    def stored(client: httpx.Client) -> int:
        answer = client.get("/api/v1/metrics", params={"step": "all", "endpoint": "run"})
        return sum(row["requests"] for row in answer.json()["rows"])

    before, stored_before = _counted(gateway), stored(clients["1"])
    for client in clients.values():
        for _ in range(10):
            assert _run(client).status_code == 200
    assert [stored(client) - stored_before for client in clients.values()] == [20, 20]
    assert _counted(gateway) - before == 20


def test_feedback_finds_the_answer_of_another_worker(clients: dict[str, httpx.Client]) -> None:
    """Who answered matters to nobody who gives feedback, and it counts once."""
    answer = _run(clients["1"])
    feedback = {
        "request_id": answer.headers["X-Request-ID"],
        "category": answer.json()["category"],
    }
    for worker, counted in (("2", True), ("1", False), ("2", False)):
        given = clients[worker].post("/api/v1/feedback", json=feedback)
        assert given.status_code == 200, given.text
        assert (given.json()["correct"], given.json()["counted"]) == (True, counted)


async def test_a_killed_worker_takes_only_its_own_requests_along(gateway: GatewayProcess) -> None:
    """SIGKILL of one under load: the other's callers notice nothing, totals grow, it comes back."""
    # A test before may have ended a worker: callers that come now would all be the other one's.
    await eventually(lambda: _is_back(gateway), within_s=40)
    victim, sibling = (_workers(gateway)[number] for number in ("1", "2"))
    totals = []
    with _calling(gateway.url) as callers:
        await eventually(lambda: min(callers.heard["1", 200], callers.heard["2", 200]) >= 20)
        totals.append(await asyncio.to_thread(_counted, gateway))
        victim.kill()
        await eventually(lambda: not victim.is_running())
        before = callers.answered
        await eventually(lambda: callers.answered > before + 50)
        totals += [await asyncio.to_thread(_counted, gateway) for _ in range(5)]
    await eventually(lambda: _is_back(gateway), within_s=40)
    totals.append(await asyncio.to_thread(_counted, gateway))
    failed = {key: count for key, count in callers.heard.items() if key[1] != 200}
    assert {worker for worker, _ in failed} <= {"1"}
    assert sum(failed.values()) <= 4  # one for each caller at most
    assert totals == sorted(totals)
    assert sibling.is_running()
    assert _regions([victim, *_workers(gateway).values()]) == []


def _is_back(gateway: GatewayProcess) -> bool:
    with httpx.Client(base_url=gateway.url, timeout=30, trust_env=False) as client:
        return client.get("/readyz").headers["X-Gateway-Worker"] == "1"


async def test_a_worker_killed_while_it_waits_takes_no_place_along(
    gateway: GatewayProcess, clients: dict[str, httpx.Client], folder: Path
) -> None:
    """One validates, one waits for its turn and is killed: others are validated afterwards."""
    model = FIRST_VERSION.read_bytes()

    def register(client: httpx.Client, name: str) -> int:
        answer = client.post("/api/v1/register", params={"name": name}, content=model)
        return answer.status_code

    def uploaded() -> int:
        files = folder.rglob("*.onnx")
        return sum(".staging" in path.parts and _size(path) == len(model) for path in files)

    holder, waiter = (_workers(gateway)[number] for number in ("1", "2"))
    holding = asyncio.create_task(asyncio.to_thread(register, clients["1"], "held"))
    await eventually(lambda: holder.children() != [])
    validation = holder.children()[0]
    validation.suspend()
    waiting = asyncio.create_task(asyncio.to_thread(register, clients["2"], "waiting"))
    await eventually(lambda: uploaded() == 2)
    # What it asks the parent now is asked after the place.
    await asyncio.to_thread(clients["1"].get, "/metrics")
    waiter.kill()
    with pytest.raises(httpx.TransportError):
        await waiting
    validation.resume()
    assert await holding == 200
    assert register(clients["1"], "later") == 200


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


async def test_all_workers_recover_from_a_killed_triton(
    gateway: GatewayProcess, clients: dict[str, httpx.Client]
) -> None:
    """After SIGKILL of tritonserver every worker answers again, with nobody asking."""
    gateway.triton.kill()

    def answered() -> bool:
        return all(_run(client).status_code == 200 for client in clients.values())

    await eventually(lambda: _run(clients["1"]).status_code == 503, within_s=5)
    await eventually(answered, within_s=20)


def test_a_killed_parent_takes_everything_along(gateway: GatewayProcess) -> None:
    """SIGKILL of the parent: no worker, no Triton and no shared memory of ours is left."""
    processes = [*_workers(gateway).values(), gateway.triton, *gateway.stubs()]
    gateway.kill()
    psutil.wait_procs(processes, timeout=10)
    assert [process for process in processes if _lives(process)] == []
    assert _regions(processes) == []


async def test_a_stop_under_load_is_an_orderly_end(gateway: GatewayProcess, folder: Path) -> None:
    """SIGTERM: what was admitted is answered, the exit code is 0, and nothing is left."""
    assert gateway.process.poll() is not None
    with running_gateway(folder, environment=_ENVIRONMENT) as again:
        processes = [*_workers(again).values(), again.triton, *again.stubs()]
        with _calling(again.url) as callers:
            await eventually(lambda: callers.answered > 40)
            code = await asyncio.to_thread(again.stop, signal.SIGTERM)
    assert code == 0
    assert {what for _, what in callers.heard} <= {
        200,
        503,
        # A connection that was idle, or not served yet, when no more were accepted.
        "RemoteProtocolError",
        "ReadError",
    }
    assert [process for process in processes if _lives(process)] == []
    assert _regions(processes) == []


async def test_a_stop_is_announced_before_connections_are_refused(tmp_path: Path) -> None:
    """After SIGTERM new connections are answered for a while, by workers that say not ready."""
    with running_gateway(tmp_path, environment={**_ENVIRONMENT, "DRAIN_DELAY_S": "2"}) as stopping:

        def status(path: str) -> int:
            return httpx.get(f"{stopping.url}{path}", timeout=30, trust_env=False).status_code

        assert status("/readyz") == 200
        asked_s = time.monotonic()
        ended = asyncio.create_task(asyncio.to_thread(stopping.stop, signal.SIGTERM))
        await eventually(lambda: {status("/readyz") for _ in range(4)} == {503}, within_s=1)
        while time.monotonic() - asked_s < 1.5:
            assert await asyncio.to_thread(status, "/livez") == 200
        assert await ended == 0
        assert time.monotonic() - asked_s > 2


def test_a_worker_that_cannot_start_ends_the_gateway(tmp_path: Path) -> None:
    """It is told which, and is not tried for ever."""
    killing = threading.Event()

    def kill_first_worker() -> None:
        me = psutil.Process(os.getpid())
        while not killing.is_set():
            for process in me.children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    line = process.cmdline()
                    if line[-4:-2] == ["worker", "1"] and str(tmp_path) == process.cwd():
                        process.kill()
                        return
            time.sleep(0.01)

    killer = threading.Thread(target=kill_first_worker)
    killer.start()
    try:
        with pytest.raises(AssertionError, match=r"Worker 1 could not start .killed by SIGKILL"):
            GatewayProcess(tmp_path, _ENVIRONMENT, ())
    finally:
        killing.set()
        killer.join()
