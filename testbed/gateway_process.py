"""
A gateway as its users run it: the command line in a process of its own, on a free port, with its
own data folder and repository. What it prints tells when it is ready, so that nothing has to be
polled.
"""

import contextlib
import os
import queue
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil

_READY = re.compile(r'^Ready: (https?://\S+)/docs|^{"url": "(https?://[^"]+)", "event": "ready"')
START_TIMEOUT_S = 60.0
LINE_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 40.0


class GatewayProcess:
    """A running `gateway serve`. `client` talks to it; `output` is what it printed so far."""

    def __init__(self, folder: Path, environment: Mapping[str, str], arguments: tuple[str, ...]):
        self.folder = folder
        self.output: list[str] = []
        self._printed = threading.Condition()
        inherited = {k: v for k, v in os.environ.items() if k in {"PATH", "HOME", "LANG"}}
        # The folder is the working directory too, so that no .env of the checkout is read.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve", *arguments],
            cwd=folder,
            env={
                **inherited,
                **{k: v for k, v in os.environ.items() if k.startswith("OPENBLAS_")},
                "PYTHONUNBUFFERED": "1",
                "PORT": "0",
                "DATA_DIR": str(folder / "var"),
                "MODEL_REPOSITORY": str(folder / "repository"),
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._ready: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        url = self._ready.get(timeout=START_TIMEOUT_S)
        if url is None:
            self.process.wait()
            self._end()
            raise AssertionError("the gateway ended:\n" + "".join(self.output))
        self.url = url
        ca = environment.get("SSL_CERT_FILE")
        verify = ssl.create_default_context(cafile=ca) if ca else True
        self.client = httpx.Client(base_url=url, timeout=60.0, trust_env=False, verify=verify)

    def line_with(self, *parts: str) -> str:
        """
        Return the first line of the output that holds all of `parts`.

        What is printed before an answer is sent can be read here after the answer.

        Raises:
            AssertionError: No such line within `LINE_TIMEOUT_S`.
        """
        deadline_s = time.monotonic() + LINE_TIMEOUT_S
        with self._printed:
            while True:
                for line in self.output:
                    if all(part in line for part in parts):
                        return line
                if not self._printed.wait(deadline_s - time.monotonic()):
                    raise AssertionError(f"no line with {parts}:\n" + "".join(self.output))

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._printed:
                self.output.append(line)
                self._printed.notify_all()
            if found := _READY.match(line):
                self._ready.put(found[1] or found[2])
        self._ready.put(None)

    @property
    def triton(self) -> psutil.Process:
        """The embedded tritonserver."""
        for child in psutil.Process(self.process.pid).children():
            if child.name() == "tritonserver":
                return child
        raise AssertionError("no tritonserver among the gateway's children")

    @property
    def triton_headers(self) -> dict[str, str]:
        """What the embedded Triton wants to see over HTTP; only its owner may read it."""
        return {"admin-key": (self.folder / "var/triton/admin-key").read_text()}

    @property
    def triton_metadata(self) -> dict[str, str]:
        """The same over gRPC."""
        return {"triton-grpc-protocol-admin-key": self.triton_headers["admin-key"]}

    def stubs(self) -> list[psutil.Process]:
        """The processes that run the models."""
        # None while Triton is down, or when one ends while they are counted.
        with contextlib.suppress(psutil.NoSuchProcess, AssertionError):
            return self.triton.children()
        return []

    def register(self, name: str, content: bytes, **parameters: str) -> dict[str, Any]:
        """Register a model that must be taken; return the answer."""
        answer = self.client.post(
            "/api/v1/register", params={"name": name, **parameters}, content=content
        )
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def stop(self, number: int = signal.SIGINT) -> int:
        """Ask it to stop, wait, and return the exit code."""
        self.client.close()
        self.process.send_signal(number)
        code = self.process.wait(STOP_TIMEOUT_S)
        self._end()
        return code

    def kill(self) -> None:
        """End it as a power cut would."""
        self.client.close()
        self.process.kill()
        self.process.wait()
        self._end()

    def _end(self) -> None:
        assert self.process.stdout is not None
        self._reader.join()
        self.process.stdout.close()


@contextlib.contextmanager
def running_gateway(
    folder: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[GatewayProcess]:
    """Run a gateway in `folder` for the length of the block; it is stopped in order at the end."""
    gateway = GatewayProcess(folder, environment or {}, arguments)
    try:
        yield gateway
    finally:
        if gateway.process.poll() is None:
            gateway.stop()
