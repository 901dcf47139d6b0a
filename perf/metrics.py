"""
What metrics cost, and how large they grow.

    python -m perf.metrics cost    run with metrics on against off, interleaved rounds
    python -m perf.metrics size    the database after a simulated year, 50 models × 3 versions
"""

import argparse
import asyncio
import base64
import io
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import httpx
from PIL import Image

from gateway.metrics.merging import roll_up
from gateway.store.database import open_database
from gateway.store.request_metrics import RequestMetricsStore, StoredMetrics
from gateway.telemetry.sketches import LatencySketch, pack
from tests.gateway_process import running_gateway

_ROOT = Path(__file__).parents[1]


def cost(rounds: int, requests: int) -> None:
    """Print the median ratio of a round's time with metrics to one without."""
    noise = random.Random(1).randbytes(815 * 803 * 3)
    encoded = io.BytesIO()
    Image.frombytes("RGB", (815, 803), noise).resize((280, 280)).save(encoded, "JPEG")
    image = {"image": base64.b64encode(encoded.getvalue()).decode()}
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("on", "off"):
            shutil.copytree(_ROOT / "model_repository/digits", f"{folder}/{name}/repository/digits")
        with (
            running_gateway(Path(folder, "on"), "--demo") as on,
            running_gateway(Path(folder, "off"), "--demo", environment={"METRICS": "false"}) as off,
        ):
            for number in range(rounds):
                pair = [("on", on.client), ("off", off.client)]
                took_s = {}
                for name, client in pair if number % 2 else reversed(pair):
                    took_s[name] = _round_s(client, image, requests)
                ratios.append(took_s["on"] / took_s["off"])
    low, middle, high = statistics.quantiles(ratios[1:], n=4)
    print(f"on / off: median {middle:.4f}, quartiles {low:.4f} to {high:.4f}, {rounds - 1} rounds")


def _round_s(client: httpx.Client, image: dict[str, str], requests: int) -> float:
    began_s = time.perf_counter()
    for _ in range(requests):
        client.post("/api/v1/run/digits", json=image)
    return time.perf_counter() - began_s


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
                StoredMetrics(**{**_fields(row), "model": f"model-{copy}"})
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


def _fields(row: StoredMetrics) -> dict[str, object]:
    return {name: getattr(row, name) for name in StoredMetrics.__slots__}


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
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--requests", type=int, default=200)
    asked = parser.parse_args()
    if asked.what == "cost":
        cost(asked.rounds, asked.requests)
    else:
        asyncio.run(size())
