"""Goodput under overload, and what a polite client and a health check wait meanwhile."""

import base64
import io
import json
import os
import re
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from PIL import Image

from perf.bench.models import tiny
from testbed.gateway_process import GatewayProcess, running_gateway
from testbed.raw_http import exchange

CONNECTIONS = (32, 272, 544, 2720, 8000)
ROUND_S = 8
_LUA = """
wrk.method, wrk.body = "POST", '%s'
wrk.headers["Content-Type"] = "application/json"
function response(status) if status == 200 then good = (good or 0) + 1 end end
local threads = {}
function setup(thread) table.insert(threads, thread) end
function done()
  local sum = 0
  for _, thread in ipairs(threads) do sum = sum + (thread:get("good") or 0) end
  print("good " .. sum)
end
"""


def measure() -> dict[str, object]:
    """Load the gateway by ever more connections that do not wait before they try again."""
    image = io.BytesIO()
    Image.new("RGB", (8, 8), (9, 99, 199)).save(image, "PNG")
    body = json.dumps({"image": base64.b64encode(image.getvalue()).decode()})
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        models = folder / "models"
        models.mkdir()
        (models / "m.onnx").write_bytes(tiny())
        script = folder / "run.lua"
        script.write_text(_LUA % body)
        environment = {"MODELS_DIR": str(models), "WORKERS": os.environ.get("WORKERS", "1")}
        with running_gateway(folder, environment=environment) as gateway:
            assert gateway.client.post("/api/v1/load", params={"name": "m"}).content == b"200"
            _round(gateway, script, 16, body)
            return {str(count): _round(gateway, script, count, body) for count in CONNECTIONS}


def _round(gateway: GatewayProcess, script: Path, connections: int, body: str) -> dict[str, object]:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{ROUND_S}s", "-s", script]
    logged = len(gateway.output)
    with subprocess.Popen(
        [*command, f"{gateway.url}/api/v1/run/m"], stdout=subprocess.PIPE, text=True
    ) as load:
        stop = threading.Event()
        polite: list[tuple[int, float]] = []
        livez: list[tuple[int, float]] = []
        run = (
            f"POST /api/v1/run/m HTTP/1.1\r\nHost: t\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode()
        health = b"GET /livez HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
        probes = [
            threading.Thread(target=_probe, args=(gateway.url, sent, seen, stop))
            for sent, seen in ((run, polite), (health, livez))
        ]
        for probe in probes:
            probe.start()
        assert load.stdout is not None
        said = load.stdout.read()
        stop.set()
        for probe in probes:
            probe.join()
    good = int(re.findall(r"good (\d+)", said)[0])
    refused = [took_s for status, took_s in polite if status in {429, 503}]
    return {
        "goodput_per_s": round(good / ROUND_S),
        "answered_per_s": round(float(re.findall(r"Requests/sec:\s+([\d.]+)", said)[0])),
        "refused_p99_ms": _p99_ms(refused),
        "refused": len(refused),
        "polite": len(polite),
        "livez_p99_ms": _p99_ms([took_s for _, took_s in livez]),
        "lines_logged": len(gateway.output) - logged,
    }


def _probe(url: str, sent: bytes, seen: list[tuple[int, float]], stop: threading.Event) -> None:
    """Ask ten times a second, over a connection of its own each time."""
    while not stop.wait(0.1):
        began_s = time.monotonic()
        try:
            answers = exchange(url, sent)
        except OSError:
            answers = []
        seen.append((answers[0].status if answers else 0, time.monotonic() - began_s))


def _p99_ms(times_s: list[float]) -> float | None:
    if len(times_s) < 2:
        return round(times_s[0] * 1000, 1) if times_s else None
    return round(statistics.quantiles(times_s, n=100)[98] * 1000, 1)
