"""Fifty tiny models: how long until each is ready, at the start and after Triton was killed."""

import json
import statistics
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import onnx

from gateway.demo import FIRST_VERSION
from testbed.gateway_process import GatewayProcess, running_gateway

MODELS = 50
_WITHIN_S = 120.0


def measure() -> dict[str, object]:
    """Tell when the first, the middle and the last model was ready."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with running_gateway(folder) as gateway:
            _register(gateway)
        began_s = time.time()
        with running_gateway(folder) as gateway:
            started = _summary(_loaded(gateway, 0), began_s)
            seen, began_s = len(gateway.output), time.time()
            gateway.triton.kill()
            killed = _summary(_loaded(gateway, seen), began_s)
        return {"after a start": started, "after Triton was killed": killed}


def _register(gateway: GatewayProcess) -> None:
    model = onnx.load(FIRST_VERSION)
    for number in range(MODELS):
        model.doc_string = str(number)
        gateway.register(f"m{number:02}", model.SerializeToString())
    names = [f"m{number:02}" for number in range(MODELS)]
    with ThreadPoolExecutor(MODELS) as pool:
        list(pool.map(lambda n: gateway.client.post("/api/v1/load", params={"name": n}), names))


def _loaded(gateway: GatewayProcess, seen: int) -> list[float]:
    """Wait until all were loaded since a line of the log; tell when each was."""
    until_s = time.monotonic() + _WITHIN_S
    while len(times := _times(gateway.output[seen:])) < MODELS and time.monotonic() < until_s:
        time.sleep(0.2)
    return sorted(times.values())


def _times(lines: Iterable[str]) -> dict[str, float]:
    found = {}
    for line in lines:
        if '"event": "loaded"' in line:
            record = json.loads(line)
            found[record["model"]] = datetime.fromisoformat(record["timestamp"]).timestamp()
    return found


def _summary(times_s: list[float], began_s: float) -> dict[str, object]:
    waits_s = [round(at_s - began_s, 1) for at_s in times_s]
    return {
        "models": len(waits_s),
        "first_s": waits_s[0],
        "median_s": round(statistics.median(waits_s), 1),
        "last_s": waits_s[-1],
    }
