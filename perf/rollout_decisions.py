"""What a rollout decides about better and worse versions, and how many callers saw it."""

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from gateway.demo import FIRST_VERSION as FIRST
from gateway.demo import SECOND_VERSION as SECOND
from perf import rollout_versions
from perf.rollout_calls import load_version, register_versions
from testbed.gateway_process import GatewayProcess
from testbed.rollout_load import Answered, Load, Picture, latest

_WITHIN_S = 60.0
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
    hanging = rollout_versions.slow(
        folder / "hanging.onnx", products=rollout_versions.HANGING_PRODUCTS, share=0.2
    )
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
    register_versions(gateway, name, scenario.champion, scenario.challenger)
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


def calibrate(gateway: GatewayProcess, options: argparse.Namespace, sent: Sequence[Picture]) -> int:
    """How many products make Triton's answers half as slow again here, under the same load."""
    tried = 500
    with tempfile.TemporaryDirectory() as folder:
        file = rollout_versions.slow(Path(folder) / "slow.onnx", products=tried)
        register_versions(gateway, "calibration", SECOND, file)
    load_version(gateway, "calibration", version=2)
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
