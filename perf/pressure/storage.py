"""A locked and a deleted database file, and a repository that is empty for five seconds."""

import contextlib
import shutil
import sqlite3
import tempfile
import time
from collections import Counter
from pathlib import Path

from gateway.demo import FIRST_VERSION
from testbed.gateway_process import GatewayProcess, running_gateway
from testbed.rollout_family import PICTURES
from testbed.rollout_load import Load


def measure() -> dict[str, object]:
    """Tell what is answered meanwhile."""
    with tempfile.TemporaryDirectory() as place, running_gateway(Path(place)) as gateway:
        gateway.register("m", FIRST_VERSION.read_bytes(), load="true")
        gateway.register("other", FIRST_VERSION.read_bytes())
        return {
            "repository empty for 5 s": _blink(gateway),
            "database locked": _locked(gateway),
            "database file deleted": _deleted(gateway),
        }


def _blink(gateway: GatewayProcess) -> dict[str, int]:
    repository, away = gateway.folder / "repository", gateway.folder / "away"
    with Load(gateway.url, "m", PICTURES, clients=1) as clients:
        repository.rename(away)
        repository.mkdir()
        time.sleep(5)
        shutil.rmtree(repository)
        away.rename(repository)
        time.sleep(1)
    return {str(status): number for status, number in Counter(clients.statuses).items()}


def _load(gateway: GatewayProcess) -> dict[str, object]:
    began_s = time.monotonic()
    answer = gateway.client.post("/api/v1/load", params={"name": "other"})
    return {"status": answer.status_code, "took_s": round(time.monotonic() - began_s, 1)}


def _locked(gateway: GatewayProcess) -> dict[str, object]:
    with contextlib.closing(sqlite3.connect(gateway.folder / "var/gateway.db")) as locker:
        locker.isolation_level = None
        locker.execute("BEGIN IMMEDIATE")
        answered = _load(gateway)
        locker.execute("ROLLBACK")
    return answered


def _deleted(gateway: GatewayProcess) -> dict[str, object]:
    (gateway.folder / "var/gateway.db").unlink()
    return _load(gateway)
