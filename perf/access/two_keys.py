"""
Two keys, one with 64 clients and one with one: what the single client waits.

The 64 are `wrk`; the single client is a process of its own, as callers are. Alone and beside are
measured in turns, because a machine of few cores is never twice the same.
"""

import tempfile
from pathlib import Path
from typing import Any

from perf.access._clients import Times, asked_gateway

ROUNDS = 4
SECONDS = 5
GREEDY = 64
ANY_NUMBER = {"MAX_RUNS_BESIDE_OTHERS": "1000000"}
CASES: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "as it is": ({}, {}),
    "any number of runs beside others": (ANY_NUMBER, {}),
    "the greedy key with one run in flight": ({}, {"in_flight": 1}),
    "the greedy key for batch work": ({}, {"priority": "batch"}),
}


def measure() -> dict[str, object]:
    """Measure the single client's times, by the gateway's settings and the greedy key's limits."""
    return {label: _measure(*case) for label, case in CASES.items()}


def _measure(environment: dict[str, str], terms: dict[str, Any]) -> dict[str, object]:
    with (
        tempfile.TemporaryDirectory() as place,
        asked_gateway(Path(place), keyed=True, **environment) as asked,
    ):
        lone = asked.make_key("lone", role="infer")
        greedy = asked.make_key("greedy", role="infer", **terms)
        asked.load(key=lone, clients=8, seconds=3)
        alone, beside, rates = Times(), Times(), []
        for _ in range(ROUNDS):
            alone.times_s += asked.single(lone, seconds=SECONDS - 1).times_s
            with asked.start_load(key=greedy, clients=GREEDY, seconds=SECONDS + 2) as load:
                beside.times_s += asked.single(lone, seconds=SECONDS - 1).times_s
                said, _ = load.communicate()
            rates.append(float(said.split("Requests/sec:")[1].split()[0]))
        p99s = alone.percentile_ms(0.99), beside.percentile_ms(0.99)
        return {
            "alone_ms": {"p50": alone.percentile_ms(0.5), "p99": p99s[0]},
            "beside_ms": {"p50": beside.percentile_ms(0.5), "p99": p99s[1]},
            "p99_ratio": round(p99s[1] / p99s[0], 2),
            "requests": [len(alone.times_s), len(beside.times_s)],
            "greedy_per_s": rates,
        }
