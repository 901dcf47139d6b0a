"""What a shadow costs callers: one that asks now and then, and many that saturate the machine."""

import argparse
import base64
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from gateway.demo import FIRST_VERSION as FIRST
from gateway.demo import SECOND_VERSION as SECOND
from gateway.triton.embedded.stubs import StubWatch
from perf import rollout_versions
from perf.bench import images
from perf.rollout_calls import load_version, register_versions
from perf.rollout_cases import CNN_LAYERS
from testbed.gateway_process import GatewayProcess
from testbed.rollout_calls import register
from testbed.rollout_load import Load, Picture

_LAST_CORE = max(os.sched_getaffinity(0))

_WARM_S = 1.5
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


def shadow_throughput(gateway: GatewayProcess, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure callers who saturate the machine with and without a shadow at 100 %, in turns."""
    return [
        _throughput(gateway, name, clients, pictures, options)
        for name, versions, pictures in _workloads()
        for clients in _begun(gateway, name, versions)
    ]


def _workloads() -> Iterator[tuple[str, tuple[Path, Path], Sequence[Picture]]]:
    """Yield a name, two versions with the same answers, and what is sent."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        digits = rollout_versions.pictures()
        for kind, build in (
            ("tiny", rollout_versions.again),
            ("cnn", partial(rollout_versions.convolving, layers=CNN_LAYERS)),
        ):
            files = build(folder / "one.onnx", seed=0), build(folder / "two.onnx", seed=1)
            yield f"{kind}, small PNGs", files, digits
        photograph = base64.b64encode(images.jpegs()[0]).decode()
        body = Picture(json.dumps({"image": photograph}).encode(), 0)
        files = (
            rollout_versions.again(folder / "one.onnx", seed=0),
            rollout_versions.again(folder / "two.onnx", seed=1),
        )
        yield "tiny, JPEGs of 815 × 803", files, [body]


def _begun(gateway: GatewayProcess, name: str, versions: tuple[Path, Path]) -> tuple[int, ...]:
    register_versions(gateway, _model(name), *versions)
    load_version(gateway, _model(name), version=2)
    return 4, 16


def _model(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())


def _throughput(
    gateway: GatewayProcess,
    name: str,
    clients: int,
    pictures: Sequence[Picture],
    options: argparse.Namespace,
) -> dict[str, Any]:
    per_s: dict[bool, list[float]] = {False: [], True: []}
    cpu_ms: dict[bool, list[float]] = {False: [], True: []}
    copies = 0
    for turn in range(options.rounds):
        for shadowed in (False, True) if turn % 2 == 0 else (True, False):
            rollout = _shadow(gateway, 2 if shadowed else None, model=_model(name))
            with Load(gateway.url, _model(name), pictures, clients=clients) as load:
                threading.Event().wait(_WARM_S)
                before, used_s, began_s = len(load.answers), _cpu_s(gateway), time.monotonic()
                threading.Event().wait(options.seconds)
                answered = len(load.answers) - before
                per_s[shadowed].append(answered / (time.monotonic() - began_s))
                cpu_ms[shadowed].append(1000 * (_cpu_s(gateway) - used_s) / answered)
            if rollout is not None:
                state = gateway.client.get(f"/api/v1/rollouts/{rollout}").json()
                copies += int(state["observations"]["challenger"]["requests"])
                gateway.client.post(f"/api/v1/rollouts/{rollout}/rollback").raise_for_status()
            assert set(load.statuses) == {200}, load.statuses
    return {
        "workload": name,
        "callers": clients,
        "per_s_without": [round(rate, 1) for rate in per_s[False]],
        "per_s_with_a_shadow": [round(rate, 1) for rate in per_s[True]],
        "cpu_ms_without": [round(used, 2) for used in cpu_ms[False]],
        "cpu_ms_with_a_shadow": [round(used, 2) for used in cpu_ms[True]],
        "rate_ratio": _ratio(per_s),
        "cpu_ratio": _ratio(cpu_ms),
        "copies_answered": copies,
    }


def _ratio(found: Mapping[bool, Sequence[float]]) -> float:
    """The median with a shadow, over the median without one."""
    return round(statistics.median(found[True]) / statistics.median(found[False]), 3)


def _cpu_s(gateway: GatewayProcess) -> float:
    """The CPU time of the gateway, its Triton and the models, which other work does not change."""
    root = psutil.Process(gateway.process.pid)
    times = [each.cpu_times() for each in (root, *root.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


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


def _shadow(gateway: GatewayProcess, version: int | None, *, model: str = "cost") -> str | None:
    if version is None:
        return None
    body = {"version": version, "strategy": "shadow", "interval_s": 3600}
    answer = gateway.client.post(f"/api/v1/models/{model}/rollouts", json=body)
    assert answer.status_code == 200, answer.text
    rollout: str = answer.json()["id"]
    return rollout
