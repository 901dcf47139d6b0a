"""An evaluation set with one mistyped label, an encrypted and a damaged zip."""

import io
import sqlite3
import tempfile
import threading
import time
import zipfile
from pathlib import Path

import httpx
import psutil

from gateway.demo import FIRST_VERSION, SAMPLE
from testbed.gateway_process import GatewayProcess, running_gateway

_WATCH_S = 25.0


def measure() -> dict[str, object]:
    """Tell what each set is answered with, and what it costs everybody else."""
    with tempfile.TemporaryDirectory() as place, running_gateway(Path(place)) as gateway:
        gateway.register("m", FIRST_VERSION.read_bytes(), load="true")
        encrypted = bytearray(_zip("7"))
        at = encrypted.find(b"PK\x01\x02")
        encrypted[6] |= 1
        encrypted[at + 8] |= 1
        damaged = _zip("7").replace(SAMPLE.read_bytes()[-40:], bytes(40))
        return {
            "an encrypted image": _put(gateway, bytes(encrypted)),
            "a damaged image": _put(gateway, damaged),
            "category 7000 of 10": _watched(gateway, _zip("7000")),
        }


def _zip(category: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.write(SAMPLE, "seven.png")
        archive.writestr("labels.csv", f"seven.png,{category}\n")
    return buffer.getvalue()


def _put(gateway: GatewayProcess, content: bytes) -> str:
    answer = gateway.client.put("/api/v1/models/m/evaluation-set", content=content)
    return f"{answer.status_code} {answer.json()['detail'] if answer.is_error else ''}".strip()


def _watched(gateway: GatewayProcess, content: bytes) -> dict[str, object]:
    """Give a set, and watch the loop, the memory and the database for a while."""
    slowest_s, done = 0.0, threading.Event()

    def ask() -> None:
        nonlocal slowest_s
        with httpx.Client(base_url=gateway.url, timeout=60, trust_env=False) as client:
            while not done.is_set():
                began_s = time.monotonic()
                client.get("/livez")
                slowest_s = max(slowest_s, time.monotonic() - began_s)
                time.sleep(0.02)

    process = psutil.Process(gateway.process.pid)
    before_bytes = process.memory_info().rss
    watch = threading.Thread(target=ask)
    watch.start()
    answered, most_bytes, until_s = _put(gateway, content), 0, time.monotonic() + _WATCH_S
    while time.monotonic() < until_s:
        most_bytes = max(most_bytes, process.memory_info().rss)
        time.sleep(0.05)
    done.set()
    watch.join()
    with sqlite3.connect(gateway.folder / "var/gateway.db") as database:
        (stored,) = database.execute(
            "SELECT coalesce(max(length(evaluation)), 0) FROM evaluations"
        ).fetchone()
    return {
        "answer": answered,
        "slowest /livez, s": round(slowest_s, 2),
        "memory gained, MB": round((most_bytes - before_bytes) / 1e6),
        "stored, MB": round(stored / 1e6, 1),
    }
