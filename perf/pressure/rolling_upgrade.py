"""
The release before, running while this one migrates its database: what it still answers, and whether
it can be started again. BEFORE names the interpreter of that release.
"""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx

from gateway.demo import FIRST_VERSION, SECOND_VERSION
from testbed.rollout_family import PICTURES

_START_S = 60.0
_JSON = {"Content-Type": "application/json"}


def measure() -> dict[str, object]:
    """Give every kind of call to the release before, ahead of and after the migration."""
    before = os.environ.get("BEFORE", sys.executable)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with _running(before, folder, "old") as old:
            first = _calls(old, 1)
            with _running(sys.executable, folder, "new") as new:
                return {
                    "before, on its own schema": first,
                    "before, on the new schema": _calls(old, 2),
                    # A rollout of this release has metrics that the one before cannot read.
                    "this release": _calls(new, 3, rollouts=False),
                    "before, again on its own requests": _calls(old, 4),
                    "a second one of the release before starts": _starts(before, folder),
                }


def _calls(url: str, seed: int, *, rollouts: bool = True) -> dict[str, int]:
    """Change something of every kind; return the statuses."""
    name, model = f"m{seed}", FIRST_VERSION.read_bytes()
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        post, body = client.post, PICTURES[0].body
        rollout = f"/api/v1/models/{name}/rollouts"
        answers = {
            "register": post("/api/v1/register", params={"name": name}, content=model),
            "load": post("/api/v1/load", params={"name": name}),
            "run": post(f"/api/v1/run/{name}", content=body, headers=_JSON),
            "second": post(
                "/api/v1/register", params={"name": name}, content=SECOND_VERSION.read_bytes()
            ),
            **(
                {"rollout": post(rollout, json={"version": 2, "strategy": "shadow"})}
                if rollouts
                else {}
            ),
            "run again": post(f"/api/v1/run/{name}", content=body, headers=_JSON),
            "rollouts": client.get(rollout),
            "metrics": client.get("/api/v1/metrics"),
            "versions": client.get(f"/api/v1/models/{name}/versions"),
            "unload": post("/api/v1/unload", params={"name": name}),
        }
        return {call: answer.status_code for call, answer in answers.items()}


def _starts(interpreter: str, folder: Path) -> str:
    try:
        with _running(interpreter, folder, "again"):
            return "yes"
    except RuntimeError as error:
        return f"no: {error}"


@contextlib.contextmanager
def _running(interpreter: str, folder: Path, own: str) -> Iterator[str]:
    """Run a gateway of a release on the shared database and repository; yield its address."""
    process = subprocess.Popen(
        [interpreter, "-m", "gateway", "serve"],
        cwd=folder,
        env={
            **{k: v for k, v in os.environ.items() if k in {"PATH", "HOME", "LANG"}},
            "PYTHONUNBUFFERED": "1",
            "PORT": "0",
            "DATA_DIR": str(folder / own),
            "MODEL_REPOSITORY": str(folder / "repository"),
            "DATABASE_URL": f"sqlite:///{folder}/shared.db",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    printed: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in process.stdout or ():
            printed.put(line)
        printed.put(None)

    threading.Thread(target=read, daemon=True).start()
    last = ""
    while (line := printed.get(timeout=_START_S)) is not None:
        last = line.strip() or last
        if line.startswith("Ready: "):
            break
    else:
        raise RuntimeError(last)
    try:
        yield line.split()[1].removesuffix("/docs")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
