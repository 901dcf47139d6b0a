"""
What clients do to connections: silence, slowness, size, too many. Without a Triton, which is not
asked.
"""

import contextlib
import json
import resource
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from testbed.gateway_process import GatewayProcess, running_gateway
from testbed.raw_http import RawResponse, answers, connect, exchange

pytestmark = pytest.mark.alone

NOWHERE = "http://127.0.0.1:9"
"""The discard port of this host: nobody answers there."""
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: t\r\n\r\n"
LAST = b"GET /livez HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
IMPATIENT = {
    "TRITON_URLS": NOWHERE,
    "HEADER_TIMEOUT_S": "2",
    "IDLE_TIMEOUT_S": "4",
    "MIN_UPLOAD_BYTES_PER_S": "100000",
    "MAX_CONNECTIONS": "64",
    "BODY_MEMORY_BYTES": "50000000",
}


@pytest.fixture(scope="module", params=["1", "2"], ids=["one worker", "two workers"])
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    environment = {**IMPATIENT, "WORKERS": request.param}
    with running_gateway(tmp_path_factory.mktemp("silence"), environment=environment) as process:
        yield process


def _ended(connection: socket.socket) -> tuple[float, list[RawResponse]]:
    """Wait for a connection's end; return after how many seconds it came, and what was said."""
    began_s = time.monotonic()
    said = answers(connection)
    return time.monotonic() - began_s, said


@pytest.mark.parametrize(
    ("sent", "status", "at_most_s"),
    [
        (b"", None, 5.0),
        (b"GET /livez HT", 408, 5.0),
        (b"GET /livez HTTP/1.1\r\nHost: t\r\nX: ", 408, 5.0),
        (LIVEZ, 200, 8.0),
    ],
    ids=["no byte", "half a line", "half a head", "no second request"],
)
def test_silence_is_closed(
    gateway: GatewayProcess, sent: bytes, status: int | None, at_most_s: float
) -> None:
    """A head that does not come gets 408, an idle connection is closed; neither stays for ever."""
    with connect(gateway.url) as connection:
        connection.sendall(sent)
        waited_s, said = _ended(connection)
    assert 1.0 < waited_s < at_most_s
    assert [answer.status for answer in said] == ([] if status is None else [status])
    if status == 408:
        assert said[0].json()["code"] == "request_timeout"


def test_dripped_headers_are_no_way_around(gateway: GatewayProcess) -> None:
    """A byte now and then does not extend the time for a head."""
    with connect(gateway.url) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: t\r\n")
        stop = threading.Event()

        def drip() -> None:
            try:
                while not stop.wait(0.2):
                    connection.sendall(b"a: b\r\n")
            except OSError:
                pass

        dripping = threading.Thread(target=drip)
        dripping.start()
        waited_s, said = _ended(connection)
        stop.set()
        dripping.join()
    assert waited_s < 5.0
    assert [answer.status for answer in said] == [408]


def test_more_connections_than_there_is_room_for(gateway: GatewayProcess) -> None:
    """Idle ones make room for new ones; the server answers, and its open files are bounded."""
    idle = []
    for _ in range(300):
        idle.append(connect(gateway.url))
        idle[-1].sendall(LIVEZ if len(idle) % 2 else b"")
    began_s = time.monotonic()
    assert [answer.status for answer in exchange(gateway.url, LAST)] == [200]
    assert time.monotonic() - began_s < 1.0
    family = [psutil.Process(gateway.process.pid)]
    family += family[0].children(recursive=True)
    sockets = sum(
        1
        for process in family
        for found in process.net_connections()
        if found.status == "ESTABLISHED"
    )
    assert sockets <= 64 + 8
    for connection in idle:
        connection.close()


def test_busy_connections_are_not_closed_for_new_ones(gateway: GatewayProcess) -> None:
    """Where all are within a request there is no room: 429, in the one shape."""
    busy: list[socket.socket] = []
    refused: list[RawResponse] = []
    try:
        # Those that are accepted before the first byte of the others was read take their places.
        while len(busy) < 400 and [answer.status for answer in refused] != [429]:
            busy += [connect(gateway.url) for _ in range(8)]
            for connection in busy[-8:]:
                connection.sendall(b"GET /livez HTTP/1.1\r\nHost: t\r\n")
            refused = exchange(gateway.url, LAST)
        assert refused[0].json()["code"] == "overloaded"
        assert refused[0].headers["retry-after"] == "1"
    finally:
        for connection in busy:
            connection.close()


def _upload(size: int, path: str = "/api/v1/run/m") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: {size}\r\n"
    return head.encode() + b"Content-Type: application/json\r\n\r\n"


def test_bodies_have_a_budget_of_memory(gateway: GatewayProcess) -> None:
    """Unfinished bodies beyond the budget: 429, and the memory of the process stays within it."""
    family = [psutil.Process(gateway.process.pid)]
    family += family[0].children(recursive=True)
    before = sum(process.memory_info().rss for process in family)
    open_, refused = [], 0
    body = b"A" * 4_900_000
    for _ in range(32):
        connection = connect(gateway.url)
        open_.append(connection)
        try:
            connection.sendall(_upload(5_000_000) + body)
        except OSError:
            refused += 1
            continue
        connection.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            refused += connection.recv(12) == b"HTTP/1.1 429"
    after = sum(process.memory_info().rss for process in family)
    assert refused >= 20
    assert after - before < 150_000_000
    for connection in open_:
        connection.close()
    assert [answer.status for answer in exchange(gateway.url, LAST)] == [200]


def test_a_dripped_body_is_ended(gateway: GatewayProcess) -> None:
    """A body below the least rate gets 408, whoever reads it, and frees what it held."""
    paths = ("/api/v1/run/m", "/api/v1/register?name=m")
    with ThreadPoolExecutor(len(paths)) as threads:
        for waited_s, said in threads.map(lambda path: _drip_body(gateway, path), paths):
            assert 15 < waited_s < 30
            assert [answer.status for answer in said] == [408]


def _drip_body(gateway: GatewayProcess, path: str) -> tuple[float, list[RawResponse]]:
    """Send a body byte by byte until the connection ends; see `_ended`."""
    with connect(gateway.url, 60) as connection:
        connection.sendall(_upload(1_000_000, path))
        stop = threading.Event()

        def drip() -> None:
            try:
                while not stop.wait(0.5):
                    connection.sendall(b"A")
            except OSError:
                pass

        dripping = threading.Thread(target=drip)
        dripping.start()
        ended = _ended(connection)
        stop.set()
        dripping.join()
    return ended


def test_a_client_that_sends_and_reads_nothing_costs_little(gateway: GatewayProcess) -> None:
    """Pipelined requests are read as their answers are: memory stays flat, others are served."""
    family = [psutil.Process(gateway.process.pid)]
    family += family[0].children(recursive=True)
    before = sum(process.memory_info().rss for process in family)
    deaf = []
    for _ in range(8):
        connection = connect(gateway.url)
        connection.setblocking(False)
        deaf.append(connection)
    sent, until_s = 0, time.monotonic() + 4.0
    while time.monotonic() < until_s:
        moved = 0
        for connection in deaf:
            with contextlib.suppress(BlockingIOError):
                moved += connection.send(LIVEZ.replace(b"livez", b"openapi.json") * 2000)
        sent += moved
        if not moved:
            time.sleep(0.05)
    after = sum(process.memory_info().rss for process in family)
    assert sent > 8 * 100_000
    assert after - before < 100_000_000
    assert [answer.status for answer in exchange(gateway.url, LAST)] == [200]
    for connection in deaf:
        connection.close()


def test_large_headers_hold_nobody_up(gateway: GatewayProcess) -> None:
    """431 after 64 KiB, however much is sent; others are answered meanwhile."""
    with connect(gateway.url) as connection:
        began_s = time.monotonic()
        try:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: t\r\nX: ")
            for _ in range(80):
                connection.sendall(b"a" * 1_000_000)
        except OSError:
            pass
        assert [answer.status for answer in exchange(gateway.url, LAST)] == [200]
        assert time.monotonic() - began_s < 4.0
        assert [answer.status for answer in answers(connection)] in ([431], [])


def test_a_low_limit_of_files_is_raised_at_start(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """More idle connections than a soft limit of 1024: others are served, no file is short."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        folder = tmp_path_factory.mktemp("files")
        environment = {"TRITON_URLS": NOWHERE}
        with running_gateway(folder, environment=environment) as gateway:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            idle = [connect(gateway.url) for _ in range(1200)]
            assert [answer.status for answer in exchange(gateway.url, LAST)] == [200]
            process = psutil.Process(gateway.process.pid)
            assert process.rlimit(psutil.RLIMIT_NOFILE)[0] > 1024
            assert not any("Too many open files" in line for line in gateway.output)
            for connection in idle:
                connection.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_client_that_leaves_is_counted_and_no_crash(gateway: GatewayProcess) -> None:
    """Within a body that the app reads: 499, no traceback, and no 400 or 500."""
    before = len(gateway.output)
    with connect(gateway.url) as connection:
        connection.sendall(_upload(1_000_000, "/api/v1/run/m?top_k=1") + b"A" * 1000)
    with connect(gateway.url) as connection:
        connection.sendall(_upload(1_000_000, "/api/v1/register?name=m") + b"A" * 1000)
    deadline_s = time.monotonic() + 10.0
    counted: set[str] = set()
    while time.monotonic() < deadline_s and len(counted) < 2:
        text = gateway.client.get("/metrics").text
        counted = {
            line.split("{")[1].split("}")[0]
            for line in text.splitlines()
            if line.startswith("gateway_requests_total") and 'status="499"' in line
        }
    assert len(counted) == 2
    assert not any(
        "Traceback" in line or "request_crashed" in line for line in gateway.output[before:]
    )
    assert json.loads(gateway.client.get("/livez").content)["ok"]
