"""
A real Prometheus that scrapes gateways once a second, with the alert rules of `deploy/prometheus`:
their expressions as they are, only what they wait for (`for:`) shortened.
"""

import contextlib
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

RULES = Path(__file__).parents[1] / "deploy/prometheus/rules.yml"
needs_prometheus = pytest.mark.skipif(
    not (shutil.which("promtool") and shutil.which("prometheus")),
    reason="no Prometheus on this machine (Debian: package prometheus)",
)


class RunningPrometheus:
    """The server, asked over HTTP."""

    def __init__(self, port: int, log: Path) -> None:
        self._http = httpx.Client(
            base_url=f"http://127.0.0.1:{port}/api/v1", timeout=10, trust_env=False
        )
        self._log = log

    def has_data(self, expr: str) -> bool:
        """Whether a query has an answer now."""
        return bool(self._ask("query", query=expr).get("result"))

    def firing(self, alert: str, **labels: str) -> bool:
        """Whether an alert with these labels fires."""
        return any(found["state"] == "firing" for found in self._active(alert, labels))

    def inactive(self, alert: str, **labels: str) -> bool:
        """Whether no alert with these labels fires or is about to."""
        return not self._active(alert, labels)

    def warnings(self) -> list[str]:
        """What it complained about in its log."""
        return [
            line
            for line in self._log.read_text().splitlines()
            if ("level=warn" in line or "level=error" in line) and "Received SIGTERM" not in line
        ]

    def _active(self, alert: str, labels: dict[str, str]) -> list[dict[str, Any]]:
        wanted = {"alertname": alert, **labels}.items()
        alerts = self._ask("alerts")["alerts"]
        return [found for found in alerts if wanted <= found["labels"].items()]

    def _ask(self, path: str, **asked: str) -> dict[str, Any]:
        answer = self._http.get(path, params=asked)
        assert answer.status_code == 200, answer.text
        data: dict[str, Any] = answer.json()["data"]
        return data

    def wait_until_scraping(self, targets: int) -> None:
        """Return when every target was scraped: what changes earlier is not seen to change."""

        def scraped() -> bool:
            with contextlib.suppress(httpx.ConnectError):
                answer = self._http.get("query", params={"query": f"sum(up) == {targets}"})
                return answer.status_code == 200 and bool(answer.json()["data"]["result"])
            return False

        until(scraped, within_s=30, what="Prometheus scrapes")

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


def until(fact: Callable[[], bool], *, within_s: float, what: str) -> float:
    """Wait for a fact that no event announces; return how long it took, in seconds."""
    began_s, tick = time.monotonic(), threading.Event()
    while not fact():
        assert time.monotonic() - began_s < within_s, f"not within {within_s} s: {what}"
        tick.wait(0.1)
    return time.monotonic() - began_s


@contextlib.contextmanager
def running_prometheus(folder: Path, urls: Sequence[str]) -> Iterator[RunningPrometheus]:
    """Run one that scrapes the gateways at `urls`, for the length of the block."""
    shortened = re.sub(r"(?m)^( +for:).*$", r"\1 1s", RULES.read_text())
    (folder / "rules.yml").write_text(shortened)
    targets = ", ".join(f"'{url.removeprefix('http://')}'" for url in urls)
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        "rule_files: [rules.yml]\n"
        f"scrape_configs: [{{job_name: gateway, static_configs: [{{targets: [{targets}]}}]}}]\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = folder / "prometheus.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/tsdb",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        running = RunningPrometheus(port, log)
        try:
            running.wait_until_scraping(len(urls))
            yield running
        finally:
            process.terminate()
            process.wait()
            running.close()
