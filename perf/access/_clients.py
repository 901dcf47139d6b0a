"""Gateways with and without keys, and who asks them: `wrk`, or one client on one connection."""

import contextlib
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from perf.bench.workloads import make_workloads
from testbed.gateway_process import GatewayProcess, running_gateway

ADMIN = "the key of the first admin, of the settings"
_LUA = """
wrk.method, wrk.body = "POST", io.open("%(body)s"):read("*a")
wrk.headers["Content-Type"] = "application/json"
if "%(key)s" ~= "" then wrk.headers["Authorization"] = "Bearer %(key)s" end
"""


@dataclass
class Times:
    """What one client on one connection saw."""

    times_s: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)

    def percentile_ms(self, share: float) -> float:
        """Give a percentile, exactly: of all times."""
        return round(1000 * float(np.quantile(self.times_s, share)), 3)


@dataclass
class Asked:
    """A gateway that serves the tiny model, and the request of workload W2 (224×224 JPEG)."""

    gateway: GatewayProcess
    body: Path
    folder: Path

    @property
    def path(self) -> str:
        """Where runs go."""
        return "/api/v1/run/tiny"

    def make_key(self, name: str, **terms: Any) -> str:
        """Make a key; return its text."""
        answer = self.gateway.client.post("/api/v1/keys", json={"name": name, **terms})
        answer.raise_for_status()
        key: str = answer.json()["key"]
        return key

    def request(self, key: str = "") -> bytes:
        """Write the request as it goes over the wire."""
        content = self.body.read_bytes()
        shown = f"Authorization: Bearer {key}\r\n" if key else ""
        head = f"POST {self.path} HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
        return f"{head}{shown}Content-Length: {len(content)}\r\n\r\n".encode() + content

    def single(self, key: str, *, seconds: float) -> Times:
        """Ask as one client, in a process of its own, as callers are; all answers were 200."""
        request = self.folder / "request"
        request.write_bytes(self.request(key))
        command = [sys.executable, "-m", "perf.access._clients", self.gateway.url, str(request)]
        done = subprocess.run([*command, str(seconds)], capture_output=True, text=True, check=True)
        times_s: list[float] = json.loads(done.stdout)
        return Times(times_s, {200: len(times_s)})

    def load(self, *, key: str = "", clients: int, seconds: int) -> float:
        """Load it by wrk; return the answers per second, all of which were 200."""
        with self.start_load(key=key, clients=clients, seconds=seconds) as load:
            said, _ = load.communicate()
        if "Non-2xx" in said:
            raise RuntimeError(said)
        return float(re.findall(r"Requests/sec:\s+([\d.]+)", said)[0])

    def start_load(self, *, key: str, clients: int, seconds: int) -> "subprocess.Popen[str]":
        """Begin to load it by wrk."""
        script = self.folder / "load.lua"
        script.write_text(_LUA % {"body": self.body, "key": key})
        return subprocess.Popen(
            [
                "wrk",
                "-t1",
                f"-c{clients}",
                f"-d{seconds}s",
                "-s",
                script,
                self.gateway.url + self.path,
            ],
            stdout=subprocess.PIPE,
            text=True,
        )


@contextlib.contextmanager
def asked_gateway(folder: Path, *, keyed: bool, **environment: str) -> Iterator[Asked]:
    """Run a gateway that serves the model, with an admin's key or open."""
    folder.mkdir(parents=True, exist_ok=True)
    workload = make_workloads(folder / "work")["W2"]
    given = {"GATEWAY_ADMIN_KEY": ADMIN} if keyed else {}
    settings = {"LOG_LEVEL": "warning", "LOG_FORMAT": "console", **given, **environment}
    with running_gateway(folder, environment=settings) as gateway:
        if keyed:
            gateway.client.headers["X-API-Key"] = ADMIN
        gateway.register("tiny", workload.model.read_bytes(), load="true")
        yield Asked(gateway, workload.body, folder)


def one_client(
    url: str, message: Callable[[], bytes], *, seconds: float, most: int | None = None
) -> Times:
    """Send one request after the other on one connection for so long, or so many."""
    seen, place = Times(), urlsplit(url)
    until_s = time.monotonic() + seconds
    with socket.create_connection((place.hostname, place.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        rest = b""
        while time.monotonic() < until_s and (most is None or len(seen.times_s) < most):
            sent = message()
            began_s = time.perf_counter()
            connection.sendall(sent)
            while b"\r\n\r\n" not in rest:
                rest += connection.recv(65536)
            head, _, rest = rest.partition(b"\r\n\r\n")
            length = int(re.findall(rb"(?i)content-length: (\d+)", head)[0])
            while len(rest) < length:
                rest += connection.recv(65536)
            rest = rest[length:]
            seen.times_s.append(time.perf_counter() - began_s)
            status = int(head[9:12])
            seen.statuses[status] = seen.statuses.get(status, 0) + 1
    return seen


def main() -> None:
    """Be the single client; print its times."""
    message = Path(sys.argv[2]).read_bytes()
    # The first half second is for the others to come up.
    one_client(sys.argv[1], lambda: message, seconds=0.5)
    seen = one_client(sys.argv[1], lambda: message, seconds=float(sys.argv[3]))
    if set(seen.statuses) != {200}:
        raise RuntimeError(seen.statuses)
    print(json.dumps(seen.times_s))


if __name__ == "__main__":
    main()
