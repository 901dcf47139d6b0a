"""
What metrics cost, and how large they grow.

    python perf/metrics.py cost    runs with metrics on against off, in interleaved rounds
    python perf/metrics.py size    the database after a simulated year, 50 models × 3 versions

`cost` runs two gateways, one with METRICS=false, and asks them in turns, the order of the two
changing from round to round: what the machine does meanwhile hits both. Of each round it takes the
ratios, on over off, of the throughput of a closed loop and of the processor time that the gateway
spent on a request, and tells their medians with 95 % intervals (bootstrap over rounds). The load is
`wrk`'s if that is installed (Debian: package wrk), else one client of this process. It asks with
the demo's digit, the smallest image there is: counting costs the same whatever the image. Writes
perf/results/metrics_cost.json. With `--same` both count: if that interval leaves one out, or is no
narrower than the other, the machine was not quiet enough to tell.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from gateway.demo import SAMPLE  # noqa: E402
from gateway.metrics.merging import roll_up  # noqa: E402 - after the path
from gateway.store.database import open_database  # noqa: E402
from gateway.store.request_metrics import RequestMetricsStore, StoredMetrics  # noqa: E402
from gateway.telemetry.sketches import LatencySketch, pack  # noqa: E402
from perf.bench.images import request_body  # noqa: E402
from perf.bench.load import run_load  # noqa: E402
from testbed.gateway_process import GatewayProcess, running_gateway  # noqa: E402

_RUN = "/api/v1/run/digits"


@dataclass(frozen=True, slots=True)
class Measured:
    """One gateway in one round: answered runs by second, and its own processor time for one."""

    per_s: float
    cpu_s: float


def cost(rounds: int, seconds: int, clients: int, *, same: bool) -> None:
    """Print the ratios on / off with their intervals; `same`: of two gateways that both count."""
    pairs: list[dict[str, Measured]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        body = folder / "body.json"
        body.write_bytes(request_body(SAMPLE.read_bytes()))
        for which in ("on", "off"):
            (folder / which).mkdir()
        with (
            running_gateway(folder / "on", "--demo") as on,
            running_gateway(folder / "off", "--demo", environment={"METRICS": str(same)}) as off,
        ):
            both = {"on": on, "off": off}
            for number in range(rounds + 1):
                order = sorted(both, reverse=bool(number % 2))
                pair = {which: _round(both[which], body, seconds, clients) for which in order}
                if number:  # the first one warms up
                    pairs.append(pair)
    report: dict[str, object] = {
        "command": f"python perf/metrics.py cost --rounds {rounds} --seconds {seconds}"
        f" --clients {clients}{' --same' if same else ''}",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "load": "wrk" if shutil.which("wrk") else "one client in Python",
        "per_s": {
            which: round(statistics.median(pair[which].per_s for pair in pairs), 1)
            for which in ("on", "off")
        },
    }
    for name in ("per_s", "cpu_s"):
        ratios = [getattr(pair["on"], name) / getattr(pair["off"], name) for pair in pairs]
        low, high = median_interval(ratios)
        middle = statistics.median(ratios)
        print(f"{name}, on / off: {middle:.4f}, 95 % from {low:.4f} to {high:.4f}, {rounds} rounds")
        report[f"{name}_on_over_off"] = {
            "median": round(middle, 4),
            "interval": [round(low, 4), round(high, 4)],
            "rounds": [round(ratio, 4) for ratio in ratios],
        }
    if same:
        return  # nothing to keep: it tells what the machine's noise alone amounts to
    result = CHECKOUT / "perf/results/metrics_cost.json"
    result.write_text(json.dumps(report, indent=2) + "\n")


def median_interval(values: Sequence[float], *, draws: int = 10_000) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of a median."""
    chance = np.random.default_rng(1)
    drawn = chance.choice(np.asarray(values), size=(draws, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return float(low), float(high)


def _round(gateway: GatewayProcess, body: Path, seconds: int, clients: int) -> Measured:
    process = psutil.Process(gateway.process.pid)
    before, began_s = process.cpu_times(), time.perf_counter()
    if shutil.which("wrk"):
        answered = _wrk(gateway.url + _RUN, body, seconds, clients)
    else:
        answered = _loop(gateway, body.read_bytes(), seconds)
    took_s, after = time.perf_counter() - began_s, process.cpu_times()
    spent_s = after.user + after.system - before.user - before.system
    return Measured(per_s=answered / took_s, cpu_s=spent_s / answered)


def _wrk(url: str, body: Path, seconds: int, clients: int) -> int:
    done = run_load(url, body, concurrency=clients, seconds=seconds)
    if done.errors:
        raise SystemExit(f"{done.errors} of {done.requests} requests failed")
    return done.requests


def _loop(gateway: GatewayProcess, body: bytes, seconds: int) -> int:
    answered, ends_s = 0, time.monotonic() + seconds
    headers = {"Content-Type": "application/json"}
    while time.monotonic() < ends_s:
        gateway.client.post(_RUN, content=body, headers=headers).raise_for_status()
        answered += 1
    return answered


async def size() -> None:
    """
    Write a sample of rows and scale: every version answers in every minute, 600 requests of it.

    Rows of 2 days of minutes, 62 days of hours, 365 of days: what a year leaves with the default
    retention.
    """
    draw = random.Random(1)
    minutes = [_minute(number, draw) for number in range(600)]
    hours = [row for at in range(0, 600, 60) for row in roll_up(minutes[at : at + 60], 3600)]
    series = 50 * 3
    total = 0.0
    for name, rows, spans in (
        ("minutes", minutes, 2 * 1440),
        ("hours", hours, 62 * 24),
        ("days", roll_up(hours, 86400), 365),
    ):
        with tempfile.TemporaryDirectory() as folder:
            database = await open_database(f"sqlite:///{folder}/gateway.db")
            store = RequestMetricsStore(database)
            empty = await asyncio.to_thread(_size_bytes, folder)
            copies = [
                replace(row, model=f"model-{copy}")
                for row in rows
                for copy in range(max(1, 3000 // len(rows)))
            ]
            await store.write(copies, writer="a" * 8)
            await database.close()
            row_bytes = (await asyncio.to_thread(_size_bytes, folder) - empty) / len(copies)
        total += row_bytes * series * spans
        print(f"{name}: {row_bytes:.0f} B a row, {row_bytes * series * spans / 1e6:.0f} MB")
    print(f"together: {total / 1e6:.0f} MB")


def _size_bytes(folder: str) -> int:
    return Path(folder, "gateway.db").stat().st_size


def _minute(number: int, draw: random.Random) -> StoredMetrics:
    sketches = {name: LatencySketch() for name in ("total", "queue", "decode", "infer")}
    for sketch, typical in zip(sketches.values(), (-4.0, -9.0, -5.5, -4.5), strict=True):
        for _ in range(600):
            sketch.add(draw.lognormvariate(typical, 0.3))
    categories = {f"{category:02d}": 60 for category in range(10)}
    return StoredMetrics(
        number * 60, "run", "model", 1, 200, 600, 10**8, 10**5, {}, categories, pack(sketches)
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["cost", "size"])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--same", action="store_true", help="Both count: shows the noise alone.")
    asked = parser.parse_args()
    if asked.what == "cost":
        cost(asked.rounds, asked.seconds, asked.clients, same=asked.same)
    else:
        asyncio.run(size())
