"""
How long callers wait after a death: kill tritonserver, or one backend process, again and again
under twenty requests a second, and time the first right answer after each.

    python perf/recovery.py --kills 20

Prints a table and writes perf/results/recovery.json.
"""

import argparse
import base64
import json
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import psutil

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from gateway.converter.model_config import ConfigOptions  # noqa: E402
from gateway.converter.publish import publish_version  # noqa: E402
from gateway.demo import FIRST_VERSION, SAMPLE  # noqa: E402 - after the path
from testbed.gateway_process import GatewayProcess, running_gateway  # noqa: E402 - after the path

PERIOD_S = 0.05
CALM_S = 2.5


def measure(gateway: GatewayProcess, kill: Callable[[], None], kills: int) -> dict[str, object]:
    """
    Kill and time, `kills` times. Recovered is the first right answer after which none was wrong for
    two seconds: with two instances every second request may fail.
    """
    body = {"image": base64.b64encode(SAMPLE.read_bytes()).decode()}
    ticks = threading.Event()
    waits_s, refused = [], 0
    for _ in range(kills):
        kill()
        began_s = time.monotonic()
        recovered_s: float | None = None
        while recovered_s is None or time.monotonic() - recovered_s < CALM_S:
            asked_s = time.monotonic()
            answer = gateway.client.post("/api/v1/run/digits", json=body)
            if answer.status_code != 200 or answer.json() != {"category": "07"}:
                recovered_s = None
                refused += 1
            elif recovered_s is None:
                recovered_s = time.monotonic()
            ticks.wait(max(0.0, PERIOD_S - (time.monotonic() - asked_s)))
        waits_s.append(recovered_s - began_s)
    return {
        "kills": kills,
        "median_s": round(statistics.median(waits_s), 3),
        "longest_s": round(max(waits_s), 3),
        "requests_refused": refused,
        "waits_s": [round(wait, 3) for wait in waits_s],
    }


def main() -> None:
    """Measure both kinds of death."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    kills = parser.parse_args().kills
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        publish_version(
            FIRST_VERSION,
            repository=folder / "repository",
            name="digits",
            version=1,
            options=ConfigOptions(),
        )
        with running_gateway(folder) as gateway:
            gateway.client.post("/api/v1/load", params={"name": "digits"})

            def kill_triton() -> None:
                triton = gateway.triton
                triton.kill()
                psutil.wait_procs([triton], timeout=10)

            def kill_stub() -> None:
                gateway.stubs()[0].kill()

            report = {
                "command": f"python perf/recovery.py --kills {kills}",
                "machine": f"{os.cpu_count()} cores, {platform.machine()}",
                "versions": {
                    "python": platform.python_version(),
                    "onnxruntime": version("onnxruntime"),
                },
                "tritonserver killed": measure(gateway, kill_triton, kills),
                "one backend process killed": measure(gateway, kill_stub, kills),
            }
    for what, figures in report.items():
        if isinstance(figures, dict) and "median_s" in figures:
            print(f"{what}: median {figures['median_s']} s, longest {figures['longest_s']} s")
    (CHECKOUT / "perf/results/recovery.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
