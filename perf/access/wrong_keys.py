"""
100,000 wrong keys: what they do to a caller with a good one, to the metrics and to memory.

They come over eight connections, no two alike, while one caller goes on with runs. Beside that
stands what the caller waits next to calls of `/livez`, which need no key: what anybody can do.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import psutil

from perf.access._clients import ADMIN, Asked, Times, asked_gateway, one_client

WRONG = 100_000
CONNECTIONS = 8
PART_S = 4
PACED_PER_S = 500
_PATHS = (b"/api/v1/list", b"/api/v1/run/tiny", b"/nowhere")


def measure() -> dict[str, object]:
    """Flood a gateway with wrong keys, as fast as it answers and at a pace."""
    with tempfile.TemporaryDirectory() as place, asked_gateway(Path(place), keyed=True) as asked:
        good = asked.make_key("good", role="infer")
        for kind in ("wrong", "open"):
            _beside(asked, good, kind, 2_000)
        _series(asked)
        before = _series(asked)
        process = psutil.Process(asked.gateway.process.pid)
        alone = asked.single(good, seconds=PART_S)
        memory_bytes = process.memory_info().rss
        wrong, wrong_s = _beside(asked, good, "wrong", WRONG)
        grew_bytes = process.memory_info().rss - memory_bytes
        new = sorted(_series(asked) - before)
        open_, open_s = _beside(asked, good, "open", WRONG // 4)
        paced, _ = _beside(asked, good, "wrong", PACED_PER_S * PART_S * 4, pace_per_s=PACED_PER_S)
        return {
            "wrong_keys": WRONG,
            "wrong_keys_per_s": round(WRONG / wrong_s),
            "open_calls_per_s": round(WRONG / 4 / open_s),
            "new_series": new,
            "memory_grew_bytes": grew_bytes,
            "run_alone_ms": _said(alone),
            "run_beside_wrong_keys_ms": _said(wrong),
            "run_beside_open_calls_ms": _said(open_),
            f"run_beside_{PACED_PER_S}_wrong_keys_per_s_ms": _said(paced),
        }


def _beside(
    asked: Asked, key: str, kind: str, count: int, pace_per_s: float = 0.0
) -> tuple[Times, float]:
    """Run a flood in a process of its own beside a caller; give the caller's times, and its own."""
    command = [sys.executable, "-m", "perf.access.wrong_keys", asked.gateway.url, kind]
    seen = Times()
    with subprocess.Popen(
        [*command, str(count), str(pace_per_s)], stdout=subprocess.PIPE, text=True
    ) as flood:
        while flood.poll() is None:
            part = asked.single(key, seconds=PART_S)
            # What was asked after the flood does not count, unless there is nothing else.
            if flood.poll() is None or not seen.times_s:
                seen.times_s += part.times_s
        assert flood.stdout is not None
        told = json.loads(flood.stdout.read())
    if set(told["statuses"]) != {"401" if kind == "wrong" else "200"}:
        raise RuntimeError(told)
    return seen, told["took_s"]


def _said(times: Times) -> dict[str, float]:
    return {"p50": times.percentile_ms(0.5), "p99": times.percentile_ms(0.99)}


def _series(asked: Asked) -> set[str]:
    text = asked.gateway.client.get("/metrics", headers={"X-API-Key": ADMIN}).text
    lines = (line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#"))
    return {line.partition(" #")[0] for line in lines}


def _wrong_key(number: int) -> bytes:
    """Make a wrong key, half of them of the right form, on runs, lists and no routes."""
    text = f"ogw_{os.urandom(6).hex()}_{'A' * 43}" if number % 2 else os.urandom(20).hex()
    path = _PATHS[number % 3]
    return b"GET %b HTTP/1.1\r\nHost: t\r\nX-API-Key: %b\r\n\r\n" % (path, text.encode())


def main() -> None:
    """Be the flood: `URL wrong|open COUNT PACE`; print what was answered."""
    url, kind, count, pace_per_s = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    statuses: Counter[int] = Counter()
    began_s = time.monotonic()

    def flood() -> None:
        sent = 0

        def message() -> bytes:
            nonlocal sent
            sent += 1
            if pace_per_s:
                due_s = began_s + sent * CONNECTIONS / pace_per_s
                time.sleep(max(0.0, due_s - time.monotonic()))
            return (
                _wrong_key(sent) if kind == "wrong" else b"GET /livez HTTP/1.1\r\nHost: t\r\n\r\n"
            )

        seen = one_client(url, message, seconds=600, most=count // CONNECTIONS)
        statuses.update(seen.statuses)

    threads = [threading.Thread(target=flood) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"statuses": dict(statuses), "took_s": time.monotonic() - began_s}))


if __name__ == "__main__":
    main()
