"""
Two whole gateways on one PostgreSQL and one Triton: a stale one only serves, the later wish counts,
and what comes to both at once is done once.
"""

import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import onnx
import pytest

from gateway.demo import FIRST_VERSION
from testbed.gateway_process import GatewayProcess
from testbed.postgres import find_binaries, running_postgres_server
from testbed.rollout_family import PICTURES
from testbed.rollout_load import Load
from testbed.two_gateways import TwoGateways, two_gateways
from tests.eventually import eventually

pytestmark = pytest.mark.postgres

_ANSWERS = 300
"""So many answers span several looks of a gateway at its replica."""
_LOOKS_S = 2.0


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoGateways]:
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server on this machine (Debian: package postgresql)")
    with (
        running_postgres_server(binaries) as database,
        two_gateways(tmp_path_factory.mktemp("two"), database) as gateways,
    ):
        yield gateways


def _model(number: int = 0) -> bytes:
    model = onnx.load(FIRST_VERSION)
    model.doc_string = str(number)
    return bytes(model.SerializeToString())


def _ask(gateway: GatewayProcess, verb: str, name: str) -> httpx.Response:
    return gateway.client.post(f"/api/v1/{verb}", params={"name": name})


async def _registered(both: TwoGateways, name: str) -> None:
    """Register a model at the first, and return when the second knows it."""
    both.first.register(name, _model())
    await eventually(lambda: both.second.client.get(f"/api/v1/models/{name}").status_code == 200)


async def _statuses(gateway: GatewayProcess, name: str) -> Counter[int]:
    """What callers hear while the gateways look at the Triton several times."""
    until_s = time.monotonic() + _LOOKS_S
    with Load(gateway.url, name, PICTURES, clients=2) as callers:
        await eventually(lambda: time.monotonic() > until_s and len(callers.answers) >= _ANSWERS)
    assert callers.errors == []
    return callers.statuses


async def test_a_gateway_that_lost_the_database_only_serves(both: TwoGateways) -> None:
    """
    Cut off, the second neither unloads what the first has loaded since nor records a wish; it goes
    on serving what it knows. Once it is back, it follows.
    """
    for name in ("new", "known"):
        await _registered(both, name)
    assert _ask(both.first, "load", "known").status_code == 200
    await eventually(lambda: _run(both.second, "known") == 200)
    with both.proxy.cut():
        assert _ask(both.first, "load", "new").status_code == 200
        assert set(await _statuses(both.first, "new")) == {200}
        assert set(await _statuses(both.second, "known")) == {200}
        assert _ask(both.second, "load", "new").status_code == 503
    assert set(await _statuses(both.first, "new")) == {200}
    await eventually(lambda: _run(both.second, "new") == 200)
    for name in ("new", "known"):
        assert _ask(both.second, "unload", name).status_code == 200
        await eventually(lambda name=name: _run(both.first, name) == 409)


async def test_a_gateway_that_stood_still_spoils_nothing(both: TwoGateways) -> None:
    """Stopped while the first loads a model, the second does not act by what it knew before."""
    await _registered(both, "stopped")
    both.second.process.send_signal(signal.SIGSTOP)
    try:
        assert _ask(both.first, "load", "stopped").status_code == 200
        assert set(await _statuses(both.first, "stopped")) == {200}
    finally:
        both.second.process.send_signal(signal.SIGCONT)
    assert set(await _statuses(both.first, "stopped")) == {200}
    assert _ask(both.first, "unload", "stopped").status_code == 200


async def test_a_later_unload_elsewhere_overtakes_a_load(both: TwoGateways) -> None:
    """
    Load at one, unload at the other as soon as the wish is there: the load ends at once with 409,
    or was through already, and the model is not loaded afterwards. Then the same the other way.
    """
    await _registered(both, "raced")
    gateways = (both.first, both.second)
    with ThreadPoolExecutor() as pool:
        for number in range(4):
            here, there = gateways[number % 2], gateways[1 - number % 2]
            loading = pool.submit(_ask, here, "load", "raced")
            await eventually(lambda there=there: _ask(there, "unload", "raced").status_code == 200)
            began_s = time.monotonic()
            answer = loading.result()
            assert time.monotonic() - began_s < 5, "it was waited for"
            assert answer.status_code in {200, 409}
            if answer.status_code == 409:
                assert answer.json()["code"] == "load_superseded"
            await eventually(lambda: {_run(each, "raced") for each in gateways} == {409})
        # The model's loads are not blocked: the next one is through at once.
        assert _ask(both.second, "load", "raced").status_code == 200
    assert _ask(both.first, "unload", "raced").status_code == 200


async def test_the_same_bytes_to_both_at_once_become_one_version(both: TwoGateways) -> None:
    """Both answer 200 and name the same version, whoever was first."""
    gateways = (both.first, both.second)
    with ThreadPoolExecutor() as pool:
        for number in range(1, 4):
            uploads = [
                pool.submit(
                    each.client.post,
                    "/api/v1/register",
                    params={"name": "twice"},
                    content=_model(number),
                )
                for each in gateways
            ]
            answers = [upload.result() for upload in uploads]
            assert [answer.status_code for answer in answers] == [200, 200], answers[0].text
            assert {answer.json()["version"] for answer in answers} == {number}
    listed = both.first.client.get("/api/v1/models/twice").json()
    assert listed["versions"] == [1, 2, 3]


async def test_a_load_beside_a_deletion_elsewhere_is_never_a_fault(both: TwoGateways) -> None:
    """One of the two is refused, with a status that says why; the other one counts."""
    outcomes: list[tuple[int, int]] = []
    with ThreadPoolExecutor() as pool:
        for number in range(4):
            name = f"deleted{number}"
            await _registered(both, name)
            calls = [
                partial(_ask, both.first, "load", name),
                partial(both.second.client.delete, f"/api/v1/models/{name}"),
            ]
            first, last = (0, 1) if number % 2 else (1, 0)
            done = {each: pool.submit(calls[each]) for each in (first, last)}
            load, deletion = done[0], done[1]
            outcomes.append((load.result().status_code, deletion.result().status_code))
            there = both.first.client.get(f"/api/v1/models/{name}").status_code
            assert there == (404 if outcomes[-1][1] == 200 else 200)
    allowed = {(200, 409), (404, 200), (409, 200)}
    assert set(outcomes) <= allowed, outcomes


def _run(gateway: GatewayProcess, name: str) -> int:
    headers = {"Content-Type": "application/json"}
    answer = gateway.client.post(f"/api/v1/run/{name}", content=PICTURES[0].body, headers=headers)
    return answer.status_code
