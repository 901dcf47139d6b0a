"""
The faults that the alerts are about, really caused: by load, by signals, by models that are slow or
fail, by a database that is locked. Each is a context: inside, the fault lasts; behind it, it is
over, and callers are answered well again.
"""

import contextlib
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil

from gateway.triton.embedded.stubs import StubWatch
from gateway.triton.quarantine import STRIKES_TO_QUARANTINE
from testbed.gateway_process import GatewayProcess
from testbed.rollout_calls import create, register, register_two
from testbed.rollout_family import colour_model, image_of, load
from testbed.running_prometheus import until

RED, BLUE = 0, 2
ENVIRONMENT = {
    "MAX_CONCURRENT_RUNS": "2",
    "MAX_WAITING_RUNS": "2",
    "PROBE_INTERVAL_S": "1000",
    "REQUEST_TIMEOUT_S": "1.5",
    "ROLLOUT_POLL_S": "0.1",
}
"""Of a gateway that soon is full or out of patience, and asks nothing of a version by itself."""

Cause = contextlib.AbstractContextManager[None]


@contextlib.contextmanager
def asking(
    gateway: GatewayProcess, name: str, category: int, *, clients: int = 1
) -> Iterator[None]:
    """Have a model run again and again for the length of the block, whatever it answers."""
    over = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=gateway.url, timeout=60, trust_env=False) as client:
            while not over.is_set():
                with contextlib.suppress(httpx.TransportError):
                    client.post(f"/api/v1/run/{name}", json=image_of(category))

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def serve(gateway: GatewayProcess, name: str, file: Path) -> None:
    """Register a model, load it, and have it answer once."""
    register(gateway, name, file)
    assert gateway.client.post("/api/v1/load", params={"name": name}).status_code == 200
    assert _answers(gateway, name)


def _answers(gateway: GatewayProcess, name: str) -> bool:
    answer = gateway.client.post(f"/api/v1/run/{name}", json=image_of(RED))
    return answer.status_code == 200


@contextlib.contextmanager
def hanging_runs(gateway: GatewayProcess, folder: Path) -> Iterator[None]:
    """Ask a model, `hanging`, what takes it too long; at the end wait until it answers again."""
    serve(gateway, "hanging", colour_model(folder / "hanging.onnx", hangs=True))
    with asking(gateway, "hanging", BLUE):
        yield
    until(lambda: _answers(gateway, "hanging"), within_s=60, what="hanging answers again")


def full_queue(gateway: GatewayProcess, folder: Path) -> Cause:
    """Return the fault of more callers of a model, `busy`, than are let in."""
    serve(gateway, "busy", colour_model(folder / "busy.onnx"))
    return asking(gateway, "busy", RED, clients=8)


@contextlib.contextmanager
def dying_triton(gateway: GatewayProcess) -> Iterator[None]:
    """Kill Triton as often as it is started."""
    over = threading.Event()

    def kill() -> None:
        while not over.is_set():
            with contextlib.suppress(AssertionError, psutil.NoSuchProcess):
                gateway.triton.kill()
            over.wait(0.02)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def halted(gateway: GatewayProcess) -> Iterator[None]:
    """Halt the gateway."""
    gateway.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        gateway.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def dying_version(gateway: GatewayProcess, folder: Path) -> Iterator[None]:
    """Kill the process of a version, `mortal`, before it ever answers; load it anew at the end."""
    register(gateway, "mortal", colour_model(folder / "mortal.onnx"))
    gateway.client.post("/api/v1/load", params={"name": "mortal"})
    watch = StubWatch(gateway.folder.resolve() / "var/triton/instances")

    def pids() -> set[int]:
        return {stub.pid for _, stub in watch.present() if stub.model == "mortal"}

    def loaded(times: int) -> Callable[[], bool]:
        return lambda: (
            sum('"loaded"' in line and "mortal" in line for line in gateway.output) >= times
        )

    for death in range(STRIKES_TO_QUARANTINE):
        until(loaded(death + 1), within_s=60, what="mortal is loaded again")
        for pid in pids():
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(pid).kill()
    yield
    assert gateway.client.post("/api/v1/load", params={"name": "mortal"}).status_code == 200


@contextlib.contextmanager
def failed_rollout(gateway: GatewayProcess, folder: Path) -> Iterator[None]:
    """Roll a challenger of `flipped` back that answers other classes."""
    register_two(gateway, "flipped", folder, flipped=True)
    with load(gateway.url, "flipped", clients=2):
        create(gateway, "flipped", strategy="shadow")
        yield


@contextlib.contextmanager
def waiting_rollout(gateway: GatewayProcess, folder: Path) -> Iterator[None]:
    """Let a rollout of `waiting`, which nobody asks, run into its deadline; then promote."""
    register_two(gateway, "waiting", folder)
    rollout = create(gateway, "waiting", strategy="canary", steps=[50], deadline_s=0.5)
    yield
    answer = gateway.client.post(f"/api/v1/models/waiting/rollouts/{rollout}/promote")
    assert answer.status_code == 200, answer.text


@contextlib.contextmanager
def locked_database(gateway: GatewayProcess) -> Iterator[None]:
    """Hold the database's write lock while a gateway that may hold few rows is asked all kinds."""
    paths = ("/api/v1/list", "/livez", "/none", "/api/v1/models/none")
    connection = sqlite3.connect(gateway.folder / "var/gateway.db", isolation_level=None)
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.2):
            for path in paths:
                gateway.client.get(path)

    thread = threading.Thread(target=ask)
    try:
        connection.execute("BEGIN IMMEDIATE")
        thread.start()
        yield
    finally:
        over.set()
        thread.join()
        connection.execute("ROLLBACK")
        connection.close()


def seconds_to_next_minute() -> float:
    """How long the present minute still lasts: rows of minutes that are over can be given up."""
    return 60 - time.time() % 60
