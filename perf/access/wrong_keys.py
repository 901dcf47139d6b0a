"""100,000 wrong keys: what they do to a caller with a good one, to the metrics and to memory."""

import os
import tempfile
import threading
from pathlib import Path

import psutil

from perf.access.clients import ADMIN, Asked, Times, asked_gateway, one_client

WRONG = 100_000
CONNECTIONS = 8
ALONE_S = 10


def measure() -> dict[str, object]:
    """Send them over eight connections, no two alike, while one caller goes on asking."""
    with tempfile.TemporaryDirectory() as place, asked_gateway(Path(place), keyed=True) as asked:
        good = asked.request(asked.make_key("good", role="infer"))
        _flood(asked, 400)
        before = _series(asked)
        process = psutil.Process(asked.gateway.process.pid)
        alone = one_client(asked.gateway.url, lambda: good, seconds=ALONE_S)
        memory_bytes = process.memory_info().rss
        over = threading.Event()
        wrong: list[Times] = []

        def flood() -> None:
            wrong.extend(_flood(asked, WRONG))
            over.set()

        thread = threading.Thread(target=flood)
        thread.start()
        beside = Times()
        while not over.is_set():
            part = one_client(asked.gateway.url, lambda: good, seconds=1)
            beside.times_s += part.times_s
            for status, count in part.statuses.items():
                beside.statuses[status] = beside.statuses.get(status, 0) + count
        thread.join()
        statuses: dict[int, int] = {}
        for each in wrong:
            for status, count in each.statuses.items():
                statuses[status] = statuses.get(status, 0) + count
        return {
            "wrong": statuses,
            "new_series": sorted(_series(asked) - before),
            "good_alone_ms": {"p50": alone.percentile_ms(0.5), "p99": alone.percentile_ms(0.99)},
            "good_beside_ms": {"p50": beside.percentile_ms(0.5), "p99": beside.percentile_ms(0.99)},
            "good_statuses": beside.statuses,
            "memory_grew_bytes": process.memory_info().rss - memory_bytes,
        }


def _flood(asked: Asked, count: int) -> list[Times]:
    """Show so many wrong keys, half of them of the right form, on runs, lists and no routes."""
    seen: list[Times] = []
    paths = (b"/api/v1/list", b"/api/v1/run/tiny", b"/nowhere")

    def flood() -> None:
        sent = 0

        def message() -> bytes:
            nonlocal sent
            sent += 1
            text = f"ogw_{os.urandom(6).hex()}_{'A' * 43}" if sent % 2 else os.urandom(20).hex()
            return b"GET %b HTTP/1.1\r\nHost: t\r\nX-API-Key: %b\r\n\r\n" % (
                paths[sent % 3],
                text.encode(),
            )

        seen.append(one_client(asked.gateway.url, message, seconds=600, most=count // CONNECTIONS))

    threads = [threading.Thread(target=flood) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen


def _series(asked: Asked) -> set[str]:
    text = asked.gateway.client.get("/metrics", headers={"X-API-Key": ADMIN}).text
    lines = (line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#"))
    return {line.partition(" #")[0] for line in lines}
