"""Two hundred callers while versions change: none is failed, none hears a version out of force."""

from pathlib import Path

import pytest

from testbed.gateway_process import running_gateway
from testbed.rollout_calls import adopt, publish_versions
from testbed.rollout_family import load
from testbed.rollout_load import Answered, Reign, illegal
from testbed.rollout_switching import switch

pytestmark = pytest.mark.alone


def test_every_answer_under_two_hundred_callers_is_of_a_version_in_force(tmp_path: Path) -> None:
    """Promotion, roll back and a moved alias fail nobody, and take effect when they say so."""
    publish_versions(tmp_path, "m")
    with running_gateway(tmp_path, environment={"MAX_WAITING_RUNS": "1000"}) as gateway:
        adopt(gateway, "m")
        with load(gateway.url, "m", clients=200) as clients:
            done = switch(gateway.url, "m", clients)
    assert set(clients.statuses) == {200}
    assert clients.errors == []
    assert clients.wrong == 0
    assert done.illegal(clients.answers) == []
    assert set(clients.versions) == {"1", "2"}
    assert len(done.changes) == 6


def test_an_answer_of_a_version_out_of_force_is_noticed() -> None:
    """What begins after the end of a change that took a version away, or ends before it came."""
    reigns = [Reign("1", 0.0, 10.0), Reign("2", 9.0, 20.0)]

    def asked(began_s: float, ended_s: float, version: str) -> Answered:
        return Answered(began_s, ended_s, 200, version, True, 0)

    legal = [asked(9.5, 11.0, "1"), asked(8.0, 9.1, "2"), asked(12.0, 13.0, "2")]
    wrong = [asked(10.1, 11.0, "1"), asked(7.0, 8.9, "2"), asked(1.0, 2.0, "3")]
    assert illegal(legal + wrong, reigns) == wrong
