"""
The servers: how each is installed and started, and where it answers. The gateway is started as its
users start it; each peer has a virtual environment of its own under build/peers, filled from
perf/peers/NAME.txt.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from perf.bench import processes
from perf.bench.workloads import Workload

CHECKOUT = Path(__file__).resolve().parents[2]
PEERS = CHECKOUT / "perf/peers"
_VENVS = CHECKOUT / "build/peers"
_START_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 40.0
_POLL_S = 0.1
CORES = os.cpu_count() or 1


class ServerFailedError(Exception):
    """A server did not come up, or answered something else than the others."""


@dataclass(frozen=True)
class Plan:
    """How a server is run: the program (Python's arguments), its environment, and its path."""

    program: tuple[str, ...]
    path: str
    venv: str | None = None
    environment: tuple[tuple[str, str], ...] = ()
    contract: bool = False  # `load` comes before `run`


_GATEWAY = ("-m", "gateway", "serve")
_RUN = "/api/v1/run/{model}"
_ONE_A_CORE = ("{port}", "{file}", str(CORES), "1")  # workers, onnxruntime's threads in each

PLANS: dict[str, Plan] = {
    "gateway": Plan(_GATEWAY, _RUN, contract=True),
    "gateway-workers": Plan(_GATEWAY, _RUN, environment=(("WORKERS", str(CORES)),), contract=True),
    "original": Plan(
        ("original_server.py", "{port}", "{folder}"), _RUN, venv="original", contract=True
    ),
    "litserve": Plan(("litserve_server.py", *_ONE_A_CORE), "/predict", venv="litserve"),
    "kserve": Plan(
        ("kserve_server.py", *_ONE_A_CORE), "/v1/models/classifier:predict", venv="kserve"
    ),
    "mlserver": Plan(("mlserver_server.py", *_ONE_A_CORE), "/classify", venv="mlserver"),
    "bentoml": Plan(("bentoml_server.py", *_ONE_A_CORE), "/predict", venv="bentoml"),
    "ray": Plan(("ray_server.py", *_ONE_A_CORE), "/", venv="ray"),
}


def make_venv(name: str) -> Path:
    """
    Make the virtual environment of perf/peers/NAME.txt, unless it holds what that list says;
    give its interpreter.
    """
    wanted, target = PEERS / f"{name}.txt", _VENVS / name
    python, installed = target / "bin/python", target / "installed.txt"
    if installed.exists() and installed.read_text() == wanted.read_text():
        return python
    print(f"Installing {name} into {target} …", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(target)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", str(wanted)], check=True)
    shutil.copy(wanted, installed)
    return python


def install(name: str) -> None:
    """Make the server's virtual environment, if it has one."""
    venv = PLANS[name].venv
    if venv is not None:
        make_venv(venv)


def versions(name: str) -> dict[str, str]:
    """Give what a peer's list pins, by package."""
    venv = PLANS[name].venv
    if venv is None:
        return {}
    lines = (PEERS / f"{venv}.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


class Server:
    """
    A running server. `url` takes the workload's body; `pid` is the root of its processes. What it
    writes, to its home too, lies in `folder`.
    """

    def __init__(self, name: str, workload: Workload, folder: Path) -> None:
        self.name, self.workload, self._plan = name, workload, PLANS[name]
        port = _free_port()
        words = {
            "port": str(port),
            "file": str(workload.model),
            "folder": str(workload.model.parent),
            "model": workload.model.stem,
        }
        self._base = f"http://127.0.0.1:{port}"
        self._load = f"{self._base}/api/v1/load?name={workload.model.stem}"
        self.url = self._base + self._plan.path.format(**words)
        self._log = folder / "log.txt"
        self._seen: set[psutil.Process] = set()
        with self._log.open("w") as output:
            self._process = subprocess.Popen(
                [str(self._python()), *(word.format(**words) for word in self._arguments())],
                cwd=folder,
                env={
                    **{k: v for k, v in os.environ.items() if k in {"PATH", "LANG"}},
                    **dict(self._plan.environment),
                    "HOME": str(folder),
                    "TMPDIR": str(folder),
                    "PORT": str(port),
                    "MODELS_DIR": str(workload.model.parent),
                },
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=processes.adopt_orphans,  # noqa: PLW1509 - it takes no lock
            )

    def _python(self) -> Path:
        return (
            (_VENVS / self._plan.venv / "bin/python") if self._plan.venv else Path(sys.executable)
        )

    def _arguments(self) -> tuple[str, ...]:
        if self._plan.venv is None:
            return self._plan.program
        return (str(PEERS / self._plan.program[0]), *self._plan.program[1:])

    @property
    def pid(self) -> int:
        """The root of the server's processes."""
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Wait for the first answer, which has to be the right one."""
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        with httpx.Client(timeout=_START_TIMEOUT_S, trust_env=False) as client:
            while not self._answers(client):
                self.look()
                if self._process.poll() is not None or time.monotonic() > deadline_s:
                    raise ServerFailedError(f"{self.name}:\n{self._log.read_text()[-4000:]}")
                # Another program's start tells nothing that could be waited for.
                time.sleep(_POLL_S)
        self.check()

    def _answers(self, client: httpx.Client) -> bool:
        with contextlib.suppress(httpx.TransportError):
            if self._plan.contract and client.post(self._load).status_code != 200:
                return False
            return self._ask(client).status_code == 200
        return False

    def _ask(self, client: httpx.Client) -> httpx.Response:
        return client.post(
            self.url,
            content=self.workload.body.read_bytes(),
            headers={"Content-Type": "application/json"},
        )

    def check(self) -> None:
        """Hold its answer against the right one."""
        with httpx.Client(timeout=60.0, trust_env=False) as client:
            answer = self._ask(client)
        if answer.status_code != 200 or answer.json() != {"category": self.workload.category}:
            raise ServerFailedError(f"{self.name} answers {answer.status_code} {answer.text[:300]}")

    def stop(self) -> None:
        """Ask it to stop; end what is left of its processes after a while."""
        self.look()
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_TIMEOUT_S)
        for process in self._seen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()

    def look(self) -> None:
        """Remember its processes: once the root has ended, nothing leads to the others."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._seen.update(processes.tree(self.pid))


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def running_servers(
    names: list[str], workload: Workload, folder: Path
) -> Iterator[dict[str, Server]]:
    """Run all of them side by side for the length of the block; each has answered rightly."""
    running: dict[str, Server] = {}
    try:
        for name in names:
            place = folder / name
            place.mkdir(parents=True)
            running[name] = Server(name, workload, place)
            running[name].wait_until_ready()
        yield running
    finally:
        for server in running.values():
            server.stop()
