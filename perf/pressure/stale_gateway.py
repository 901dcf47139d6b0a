"""Two gateways, one Triton: one is cut off from the database, or stops, while the other loads."""

import signal
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gateway.demo import FIRST_VERSION
from testbed.gateway_process import GatewayProcess
from testbed.postgres import find_binaries, running_postgres_server
from testbed.rollout_family import PICTURES
from testbed.rollout_load import Load
from testbed.two_gateways import TwoGateways, two_gateways

_WATCH_S = 8.0
_STOPPED_S = 2.0
_ROUNDS = 8


def measure() -> dict[str, object]:
    """Tell what callers of the first gateway got, and how a load beside an unload ended."""
    binaries = find_binaries()
    if binaries is None:
        raise SystemExit("This needs PostgreSQL (Debian: package postgresql).")
    with (
        tempfile.TemporaryDirectory() as place,
        running_postgres_server(binaries) as database,
        two_gateways(Path(place), database) as both,
    ):
        both.first.register("x", FIRST_VERSION.read_bytes())
        _wait(lambda: _call(both.second, "unload") == 409)
        return {
            "cut off": _cut_off(both),
            "stopped for 2 s": _stopped(both),
            "at once": _race(both),
        }


def _cut_off(both: TwoGateways) -> dict[str, object]:
    with both.proxy.cut():
        _call(both.first, "load")
        away = _under_load(both.first)
    healed = _under_load(both.first)
    _call(both.first, "unload")
    return {"while it is cut off": away, "after that": healed}


def _stopped(both: TwoGateways) -> dict[str, object]:
    time.sleep(1)
    both.second.process.send_signal(signal.SIGSTOP)
    _call(both.first, "load")
    time.sleep(_STOPPED_S)
    both.second.process.send_signal(signal.SIGCONT)
    statuses = _under_load(both.first)
    _call(both.first, "unload")
    return statuses


def _under_load(gateway: GatewayProcess) -> dict[str, object]:
    with Load(gateway.url, "x", PICTURES, clients=2) as clients:
        time.sleep(_WATCH_S)
    return {str(status): count for status, count in sorted(clients.statuses.items())}


def _race(both: TwoGateways) -> list[dict[str, object]]:
    """Load at the first, and unload at the second as soon as that is possible."""
    outcomes: list[dict[str, object]] = []
    with ThreadPoolExecutor() as pool:
        for _ in range(_ROUNDS):
            began_s = time.monotonic()
            loading = pool.submit(_call, both.first, "load")
            _wait(lambda: _call(both.second, "unload") == 200)
            outcomes.append({"load": loading.result(), "s": round(time.monotonic() - began_s, 2)})
    return outcomes


def _call(gateway: GatewayProcess, verb: str) -> int:
    return gateway.client.post(f"/api/v1/{verb}", params={"name": "x"}).status_code


def _wait(fact: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 30
    while not fact() and time.monotonic() < until_s:
        time.sleep(0.005)
