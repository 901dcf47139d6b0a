"""
Rollouts of the demo model under load, through HTTP, against a real Triton.

    nice -n 5 python -m perf.rollout_in_production [decisions] [switching] [shadow_cost]
        [--only worse slow …] [--clients 4] [--pause-ms 10] [--seconds 10] [--rounds 5]
        [--output perf/results/rollouts.json]

decisions    A better version (90.0 % → 97.3 %) is to be promoted, and a worse, a slow (+50 %), a
             failing (5 %), a flipped and a hanging one to be rolled back, all by themselves. Told
             are: the requests until the decision, the share of them that the challenger answered,
             and how long after the verdict a caller still got an answer of the version that lost.
switching    200 callers while a version is promoted, rolled back and the alias moved by hand: how
             many were failed, or answered by a version that was not in force.
shadow_cost  What a caller waits without a shadow, without one again (the noise), with one at 100 %,
             and with one whose challenger hangs: in turns, so that what else the machine does
             falls on all. A version can hang by computing alone, so its processes are held to one
             core, and compared with no shadow while other processes take that core.

Everything that bad versions are made of: `rollout_versions`.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from gateway.demo import FIRST_VERSION as FIRST
from gateway.demo import SECOND_VERSION as SECOND
from gateway.triton.embedded.stubs import StubWatch
from perf import rollout_versions
from testbed.gateway_process import GatewayProcess, running_gateway
from testbed.rollout_calls import register
from testbed.rollout_load import Answered, Load, Picture, latest
from testbed.rollout_switching import switch

_ENVIRONMENT = {
    "CHALLENGER_TIMEOUT_S": "0.5",
    "MAX_WAITING_RUNS": "1000",
}
_LAST_CORE = max(os.sched_getaffinity(0))
_WITHIN_S = 60.0
# Products of matrices: seconds for one picture in five, with a core at work for as long.
_HANGS = 500_000
_METRICS = {"error_rate": {"tolerated": 0.02}, "latency": {"tolerated": 0.3}}
_PLAN = {"interval_s": 1, "min_samples": 100, "metrics": _METRICS}
_CHAIN: dict[str, Any] = {"strategy": ["shadow", "canary"], "steps": [20, 50]}
_CANARY: dict[str, Any] = {"strategy": "canary", "steps": [20, 50]}
# The default: 20 % slower is tolerated.
_STRICT: dict[str, Any] = {"metrics": {"error_rate": {"tolerated": 0.02}}}
# No step passes without feedback, however late it comes.
_ACCURATE: dict[str, Any] = {"metrics": {**_METRICS, "accuracy": {"required": True}}}


@dataclass(frozen=True)
class Scenario:
    """A challenger, how it is tried, and the share of answers whose true class is told."""

    name: str
    champion: Path
    challenger: Path
    plan: dict[str, Any]
    feedback: float = 0.0


def scenarios(folder: Path, *, products: int) -> list[Scenario]:
    """All that is to be decided; bad versions are written into `folder`."""
    worse = rollout_versions.worse(folder / "worse.onnx", accuracy=0.90)
    slow = rollout_versions.slow(folder / "slow.onnx", products=products)
    failing = rollout_versions.failing(folder / "failing.onnx", share=0.05)
    flipped = rollout_versions.flipped(folder / "flipped.onnx")
    hanging = rollout_versions.slow(folder / "hanging.onnx", products=_HANGS, share=0.2)
    return [
        Scenario("better", FIRST, SECOND, _CHAIN, feedback=0.5),
        Scenario("worse", SECOND, worse, _CHAIN | _ACCURATE, feedback=0.5),
        Scenario("slow", SECOND, slow, _CHAIN | _STRICT),
        Scenario("failing", SECOND, failing, _CHAIN),
        Scenario("flipped", SECOND, flipped, _CHAIN),
        Scenario("slow", SECOND, slow, _CANARY | _STRICT),
        Scenario("failing", SECOND, failing, _CANARY),
        Scenario("flipped", SECOND, flipped, _CANARY | _ACCURATE, feedback=0.5),
        Scenario("hanging", SECOND, hanging, _CHAIN),
        Scenario("hanging", SECOND, hanging, _CANARY),
    ]


def decide(
    gateway: GatewayProcess,
    name: str,
    scenario: Scenario,
    options: argparse.Namespace,
    sent: Sequence[Picture],
) -> dict[str, Any]:
    """Run one rollout under load, to its end or for a minute."""
    _register(gateway, name, scenario.champion, scenario.challenger)
    with Load(
        gateway.url,
        name,
        sent,
        clients=options.clients,
        feedback=scenario.feedback,
        pause_s=options.pause_ms / 1000,
    ) as load:
        threading.Event().wait(1.0)  # caches and connections are warm before anything is compared
        began_s = time.time()
        created = gateway.client.post(
            f"/api/v1/models/{name}/rollouts", json={"version": 2, **_PLAN, **scenario.plan}
        )
        assert created.status_code == 200, created.text
        ended = _end_of(gateway, created.json()["id"])
        threading.Event().wait(1.5)
    decided_s = time.time()
    if ended["finished_at"] is not None:
        decided_s = datetime.fromisoformat(ended["finished_at"]).timestamp()
    during = [answer for answer in load.answers if began_s <= answer.ended_s <= decided_s]
    shown = sum(answer.version == "2" for answer in during)
    return {
        "challenger": scenario.name,
        "strategy": scenario.plan["strategy"],
        "phase": ended["phase"],
        "ended_in": ended["strategy"],
        "reason": ended["reason"],
        "warnings": ended["warnings"],
        "seconds": round(decided_s - began_s, 1),
        "requests": len(during),
        "answered_by_challenger": shown,
        "share_that_saw_it": round(shown / max(1, len(during)), 4),
        "statuses": dict(load.statuses),
        "transport_errors": len(load.errors),
        "verdict_to_zero_traffic_ms": _still_ms(load.answers, ended, decided_s),
        "last_numbers": _numbers(ended),
    }


def _still_ms(answers: Sequence[Answered], ended: dict[str, Any], decided_s: float) -> float | None:
    """How long after the verdict the loser's last answer came; 0 if before; None if undecided."""
    if ended["finished_at"] is None:
        return None
    loser = "1" if ended["phase"] == "Succeeded" else "2"
    last_s = latest(answers, loser)
    return 0.0 if last_s is None else round(max(0.0, 1000 * (last_s - decided_s)), 1)


def _numbers(ended: dict[str, Any]) -> dict[str, Any]:
    if not ended["verdicts"]:
        return {}
    return {
        metric["metric"]: {key: metric[key] for key in ("champion", "challenger", "outcome")}
        for metric in ended["verdicts"][-1]["metrics"]
    }


def _end_of(gateway: GatewayProcess, rollout: str) -> dict[str, Any]:
    """Wait for the end of a rollout, for a minute at most."""
    until_s, tick = time.monotonic() + _WITHIN_S, threading.Event()
    while True:
        state: dict[str, Any] = gateway.client.get(f"/api/v1/rollouts/{rollout}").json()
        if state["phase"] in {"Succeeded", "Failed"} or time.monotonic() > until_s:
            return state
        tick.wait(0.25)


def _register(gateway: GatewayProcess, name: str, *files: Path) -> None:
    for place, file in enumerate(files, start=1):
        assert register(gateway, name, file) == place
    _load(gateway, name)


def _load(gateway: GatewayProcess, name: str, **version: int) -> None:
    answer = gateway.client.post("/api/v1/load", params={"name": name, **version})
    assert answer.status_code == 200, answer.text


def calibrate(gateway: GatewayProcess, options: argparse.Namespace, sent: Sequence[Picture]) -> int:
    """How many products make Triton's answers half as slow again here, under the same load."""
    tried = 500
    with tempfile.TemporaryDirectory() as folder:
        file = rollout_versions.slow(Path(folder) / "slow.onnx", products=tried)
        _register(gateway, "calibration", SECOND, file)
    _load(gateway, "calibration", version=2)
    halves = [
        Load(
            gateway.url,
            "calibration",
            sent,
            clients=max(1, options.clients // 2),
            version=version,
            pause_s=options.pause_ms / 1000,
        )
        for version in (1, 2)
    ]
    with halves[0], halves[1]:  # side by side, as in a canary
        threading.Event().wait(8.0)
    took_s = []
    for version in (1, 2):
        rows = gateway.client.get(
            "/api/v1/metrics",
            params={
                "model": "calibration",
                "version": version,
                "group_by": "version",
                "step": "all",
                "last": "5m",
            },
        ).json()["rows"]
        took_s.append(rows[0]["infer_p90_s"])
    base_s, slow_s = took_s
    return max(1, round(tried * 0.5 * base_s / max(slow_s - base_s, 1e-6)))


def decisions(gateway: GatewayProcess, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run every scenario."""
    sent = rollout_versions.pictures()
    products = calibrate(gateway, options, sent)
    print(f"slow: {products} products of matrices", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number, scenario in enumerate(scenarios(Path(folder), products=products)):
            if options.only and scenario.name not in options.only:
                continue
            name = f"{scenario.name}-{number}"
            row = decide(gateway, name, scenario, options, sent)
            print(json.dumps(row), flush=True)
            rows.append(row)
    return rows


def switching(gateway: GatewayProcess, options: argparse.Namespace) -> dict[str, Any]:
    """Move traffic to and fro under 200 callers."""
    _register(gateway, "switching", FIRST, SECOND)
    _load(gateway, "switching", version=2)
    sent = rollout_versions.pictures()
    with Load(gateway.url, "switching", sent, clients=200) as load:
        done = switch(gateway.url, "switching", load, seconds=options.seconds)
    took_ms = [1000 * answer.took_s for answer in load.answers]
    return {
        "callers": 200,
        "changes": len(done.changes),
        "requests": len(load.answers),
        "statuses": dict(load.statuses),
        "transport_errors": len(load.errors),
        "answered_by_a_version_not_in_force": len(done.illegal(load.answers)),
        "p99_ms": round(statistics.quantiles(took_ms, n=100)[98], 1),
    }


_BUSY = "none, a core busy otherwise"


def shadow_cost(gateway: GatewayProcess, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure one caller with and without a shadow at 100 %, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "hanging.onnx"
        hanging = rollout_versions.slow(file, products=_HANGS, share=0.2)
        _register(gateway, "cost", SECOND, FIRST)
        version = register(gateway, "cost", hanging)
        for each in (2, version):
            _load(gateway, "cost", version=each)
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


_HEADS = {
    "decisions": (
        ("challenger", "challenger"),
        ("strategy", "strategy"),
        ("end", "phase"),
        ("seconds", "seconds"),
        ("requests until then", "requests"),
        ("share that saw it", "share_that_saw_it"),
        ("verdict to zero traffic, ms", "verdict_to_zero_traffic_ms"),
        ("statuses", "statuses"),
    ),
    "switching": (
        ("callers", "callers"),
        ("changes", "changes"),
        ("requests", "requests"),
        ("statuses", "statuses"),
        ("not in force", "answered_by_a_version_not_in_force"),
        ("p99, ms", "p99_ms"),
    ),
    "shadow_cost": (
        ("shadow", "shadow"),
        ("requests", "requests"),
        ("p50, ms", "p50_ms"),
        ("p99, ms", "p99_ms"),
        ("p99 of each round, ms", "p99_ms_of_each_round"),
    ),
}


def table(part: str, rows: Sequence[dict[str, Any]]) -> str:
    """Write rows as a Markdown table."""
    lines = [
        "| " + " | ".join(head for head, _ in _HEADS[part]) + " |",
        "|---" * len(_HEADS[part]) + "|",
    ]
    lines += ["| " + " | ".join(str(row[key]) for _, key in _HEADS[part]) + " |" for row in rows]
    return "\n".join(lines)


_PARTS: dict[str, Callable[[GatewayProcess, argparse.Namespace], Any]] = {
    "decisions": decisions,
    "switching": switching,
    "shadow_cost": shadow_cost,
}


def main() -> None:
    """Measure, print tables and JSON, and put them beside what was measured before."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("parts", nargs="*", choices=[[], *_PARTS], default=list(_PARTS))
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--pause-ms", type=float, default=10.0, help="Between two requests.")
    parser.add_argument("--only", nargs="*", help="Decide only about these challengers.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("perf/results/rollouts.json"))
    options = parser.parse_args()
    found = json.loads(options.output.read_text()) if options.output.exists() else {}
    for part in options.parts:
        # A gateway of its own, so that one part leaves nothing for the next.
        with (
            tempfile.TemporaryDirectory() as folder,
            running_gateway(Path(folder), environment=_ENVIRONMENT) as gateway,
        ):
            measured = _PARTS[part](gateway, options)
        cores, at = os.cpu_count(), datetime.now().astimezone().isoformat(timespec="seconds")
        found[part] = {"at": at, "cores": cores, "load_1m": os.getloadavg()[0], "rows": measured}
        print(table(part, measured if isinstance(measured, list) else [measured]), flush=True)
        options.output.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps({part: found[part] for part in options.parts}))


if __name__ == "__main__":
    main()
