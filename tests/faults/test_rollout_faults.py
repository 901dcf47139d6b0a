"""Rollouts when things break: challengers that fail or hang, and a gateway that is killed."""

import statistics
import time
from pathlib import Path

import pytest

from testbed.gateway_process import running_gateway
from testbed.rollout_calls import champion, create, register_two, show, until
from testbed.rollout_family import load

_ENVIRONMENT = {
    "ROLLOUT_POLL_S": "0.1",
    "CHALLENGER_TIMEOUT_S": "0.3",
    "MIRROR_QUEUE": "16",
    "ROLLOUT_LEASE_S": "1",
}


@pytest.mark.parametrize("fault", ["fails", "hangs"])
def test_a_broken_shadow_does_not_reach_callers(tmp_path: Path, fault: str) -> None:
    """A challenger that fails or hangs is rolled back; callers get 200 from the champion."""
    with running_gateway(tmp_path, environment=_ENVIRONMENT) as gateway:
        register_two(gateway, "m", tmp_path, **{fault: True})
        with load(gateway.url, "m", clients=3) as clients:
            rollout = create(gateway, "m", strategy="shadow")
            ended = until(gateway.client, rollout, "Succeeded", "Failed", "Waiting")
        assert ended["phase"] == "Failed", ended["reason"]
        assert "error rate" in ended["reason"]
        assert set(clients.statuses) == {200}
        assert set(clients.versions) == {"1"}
        assert clients.wrong == 0
        took_s = [answer.took_s for answer in clients.answers]
        assert statistics.median(took_s) < 0.3
        if fault == "hangs":
            assert show(gateway.client, rollout)["shadow_dropped"] > 0


def test_a_failing_canary_is_answered_for_by_the_champion(tmp_path: Path) -> None:
    """Callers of a canary that fails get the champion's answer, and it is rolled back."""
    with running_gateway(tmp_path, environment=_ENVIRONMENT) as gateway:
        register_two(gateway, "m", tmp_path, fails=True)
        with load(gateway.url, "m", clients=3) as clients:
            rollout = create(gateway, "m", strategy="canary", steps=[50])
            ended = until(gateway.client, rollout, "Succeeded", "Failed", "Waiting")
        assert ended["phase"] == "Failed", ended["reason"]
        assert set(clients.statuses) == {200}
        assert clients.wrong == 0
        assert champion(gateway.client, "m") == 1


def test_a_killed_gateway_goes_on_where_it_was(tmp_path: Path) -> None:
    """After SIGKILL in shadow and in canary the rollout goes on to its end by itself."""
    with running_gateway(tmp_path, environment=_ENVIRONMENT) as gateway:
        register_two(gateway, "m", tmp_path)
        rollout = create(gateway, "m", strategy=["shadow", "canary"], steps=[50, 100])
        gateway.kill()
    with running_gateway(tmp_path, environment=_ENVIRONMENT) as gateway:
        assert show(gateway.client, rollout)["strategy"] == "shadow"
        with load(gateway.url, "m"):
            deadline_s = time.monotonic() + 60
            while show(gateway.client, rollout)["strategy"] == "shadow":
                assert time.monotonic() < deadline_s
            assert champion(gateway.client, "m") == 1
            gateway.kill()
    with running_gateway(tmp_path, environment=_ENVIRONMENT) as gateway:
        with load(gateway.url, "m") as clients:
            ended = until(gateway.client, rollout, "Succeeded", "Failed", "Waiting")
        assert ended["phase"] == "Succeeded", ended["reason"]
        assert champion(gateway.client, "m") == 2
        assert set(clients.versions) <= {"1", "2", ""}
