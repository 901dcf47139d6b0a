"""What a caller waits with a shadow and without one, in turns."""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from gateway.demo import FIRST_VERSION as FIRST
from gateway.demo import SECOND_VERSION as SECOND
from gateway.triton.embedded.stubs import StubWatch
from perf import rollout_versions
from perf.rollout_calls import load_version, register_versions
from testbed.gateway_process import GatewayProcess
from testbed.rollout_calls import register
from testbed.rollout_load import Load

_LAST_CORE = max(os.sched_getaffinity(0))

_BUSY = "none, a core busy otherwise"


def shadow_cost(gateway: GatewayProcess, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure one caller with and without a shadow at 100 %, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "hanging.onnx"
        hanging = rollout_versions.slow(file, products=rollout_versions.HANGING_PRODUCTS, share=0.2)
        register_versions(gateway, "cost", SECOND, FIRST)
        version = register(gateway, "cost", hanging)
        for each in (2, version):
            load_version(gateway, "cost", version=each)
    stubs = _hold_to_last_core(gateway, version)
    kinds = {"none": None, "none again": None, "one": 2, _BUSY: None, "one that hangs": version}
    took_ms: dict[str, list[float]] = {kind: [] for kind in kinds}
    p99_ms: dict[str, list[float]] = {kind: [] for kind in kinds}
    sent = rollout_versions.pictures()
    for turn in range(options.rounds):
        order = list(kinds) if turn % 2 == 0 else list(reversed(kinds))
        for kind in order:
            rollout = _shadow(gateway, kinds[kind])
            load = Load(gateway.url, "cost", sent, clients=1, pause_s=options.pause_ms / 1000)
            with _last_core_busy(stubs if kind == _BUSY else 0), load:
                threading.Event().wait(options.seconds)
            if rollout is not None:
                gateway.client.post(f"/api/v1/rollouts/{rollout}/rollback").raise_for_status()
            assert set(load.statuses) == {200}, load.statuses
            round_ms = [1000 * answer.took_s for answer in load.answers]
            took_ms[kind] += round_ms
            p99_ms[kind].append(round(statistics.quantiles(round_ms, n=100)[98], 2))
    return [
        {
            "shadow": kind,
            "requests": len(values),
            "p50_ms": round(statistics.median(values), 2),
            "p99_ms": round(statistics.quantiles(values, n=100)[98], 2),
            "p99_ms_of_each_round": p99_ms[kind],
        }
        for kind, values in took_ms.items()
    ]


def _hold_to_last_core(gateway: GatewayProcess, version: int) -> int:
    """Let a version's processes use the last core alone; return how many they are."""
    found = [
        stub.pid
        for folder in (gateway.folder / "var/triton").rglob("instances")
        for _, stub in StubWatch(folder).present()
        if (stub.model, stub.version) == ("cost", version)
    ]
    for pid in found:
        psutil.Process(pid).cpu_affinity([_LAST_CORE])
    assert found, "no process of the version"
    return len(found)


@contextlib.contextmanager
def _last_core_busy(processes: int) -> Iterator[None]:
    """Take the last core with so many processes, for the length of the block."""
    with contextlib.ExitStack() as stack:
        for _ in range(processes):
            busy = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(busy.kill)
            psutil.Process(busy.pid).cpu_affinity([_LAST_CORE])
        yield


def _shadow(gateway: GatewayProcess, version: int | None) -> str | None:
    if version is None:
        return None
    body = {"version": version, "strategy": "shadow", "interval_s": 3600}
    answer = gateway.client.post("/api/v1/models/cost/rollouts", json=body)
    assert answer.status_code == 200, answer.text
    rollout: str = answer.json()["id"]
    return rollout
