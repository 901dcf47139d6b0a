"""
SIGKILL of the gateway in each phase of a rollout: it goes on where it was, and callers are answered
by the version that the alias or the weight names. One model, one rollout after the other.
"""

import sqlite3
import time
from collections import Counter
from pathlib import Path

import httpx
import psycopg

from testbed.gateway_process import GatewayProcess, running_gateway
from testbed.rollout_calls import adopt, champion, create, publish_versions, show, until
from testbed.rollout_family import image_of, load
from tests.eventually import eventually

_ENVIRONMENT = {"ROLLOUT_POLL_S": "0.1", "CHALLENGER_TIMEOUT_S": "0.3", "ROLLOUT_LEASE_S": "1"}
_HELD = """
CREATE TRIGGER held BEFORE UPDATE ON aliases WHEN NEW.alias = 'champion'
BEGIN SELECT RAISE(ABORT, 'the disk does not take it'); END
"""


def _execute(folder: Path, statement: str) -> None:
    connection = sqlite3.connect(folder / "var" / "gateway.db", timeout=10, isolation_level=None)
    connection.execute(statement)
    connection.close()


def _answering(gateway: GatewayProcess, requests: int = 24) -> Counter[str]:
    answers = [gateway.client.post("/api/v1/run/m", json=image_of(1)) for _ in range(requests)]
    assert {answer.status_code for answer in answers} == {200}
    return Counter(answer.headers["x-model-version"] for answer in answers)


def test_waiting_and_promoting_survive_a_kill(tmp_path: Path) -> None:
    """
    Killed while it waits for a human, it waits on with the same weight. Killed between the decision
    to promote and the alias, the alias is whole, and the next start finishes the promotion.
    """
    for name in ("m", "other"):
        publish_versions(tmp_path, name)
    with running_gateway(tmp_path, environment=_ENVIRONMENT) as gateway:
        for name in ("m", "other"):
            adopt(gateway, name)
        rollout = create(gateway, "m", strategy="canary", steps=[50], deadline_s=0.5)
        until(gateway.client, rollout, "Waiting")
        gateway.kill()
    with running_gateway(tmp_path, environment=_ENVIRONMENT) as gateway:
        waiting = show(gateway.client, rollout)
        assert (waiting["phase"], waiting["weight"]) == ("Waiting", 50)
        assert set(_answering(gateway)) == {"1", "2"}
        assert champion(gateway.client, "m") == 1
        _execute(tmp_path, _HELD)
        # A connection of its own: the server closes one after an error of this kind.
        refused = httpx.post(f"{gateway.url}/api/v1/rollouts/{rollout}/promote", trust_env=False)
        assert refused.status_code == 500
        # The controller tries again and again; other rollouts and requests go on as before.
        other = create(gateway, "other", strategy="canary", steps=[50], deadline_s=0.5)
        until(gateway.client, other, "Waiting")
        assert show(gateway.client, rollout)["phase"] == "Promoting"
        assert set(_answering(gateway)) == {"1", "2"}
        assert champion(gateway.client, "m") == 1
        gateway.kill()
    with running_gateway(tmp_path, environment=_ENVIRONMENT) as gateway:
        assert show(gateway.client, rollout)["phase"] == "Promoting"
        assert champion(gateway.client, "m") == 1
        _execute(tmp_path, "DROP TRIGGER held")
        until(gateway.client, rollout, "Succeeded")
        assert champion(gateway.client, "m") == 2
        assert _answering(gateway) == {"2": 24}


def _holder(url: str) -> str:
    """Who holds the lease, as the database tells it."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT owner FROM leases WHERE name = 'rollouts'").fetchone()
    assert row is not None
    return str(row[0])


def _moved(gateway: GatewayProcess) -> bool:
    return any("rollout_step" in line or "rollout_promote" in line for line in gateway.output)


async def test_one_of_two_gateways_moves_rollouts_on(tmp_path: Path, postgres_url: str) -> None:
    """
    Of two gateways on one database one holds the lease and moves rollouts on. When it is killed the
    other takes over as soon as the lease has run out, and ends the rollout.
    """
    # Long enough for a holder on a busy machine to extend it in time.
    lease_s = 4.0
    shared = {**_ENVIRONMENT, "DATABASE_URL": postgres_url, "ROLLOUT_LEASE_S": str(lease_s)}
    publish_versions(tmp_path, "m")
    with running_gateway(tmp_path, environment=shared) as first:
        adopt(first, "m")
        own = {**shared, "DATA_DIR": str(tmp_path / "second")}
        with running_gateway(tmp_path, environment=own) as second:
            holder = _holder(postgres_url)
            with load(second.url, "m", clients=2) as clients:
                rollout = create(second, "m", strategy="canary", steps=[30, 60], min_samples=20)
                await eventually(lambda: _moved(first), within_s=30)
                assert _holder(postgres_url) == holder
                assert not _moved(second)
                first.kill()
                killed_at_s = time.monotonic()
                await eventually(lambda: _holder(postgres_url) != holder)
                took_s = time.monotonic() - killed_at_s
                ended = until(second.client, rollout, "Succeeded", "Failed")
            assert ended["phase"] == "Succeeded", ended["reason"]
            assert _moved(second)
            assert champion(second.client, "m") == 2
    assert took_s < lease_s + 2
    assert set(clients.statuses) == {200}
