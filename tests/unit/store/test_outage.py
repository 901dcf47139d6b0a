"""Work that goes on while the database is away."""

import pytest
from structlog.testing import capture_logs

from gateway.errors import StoreUnavailable
from gateway.store.outage import StoreOutage


def _try(outage: StoreOutage, *, away: bool) -> None:
    with outage.tolerated():
        if away:
            raise StoreUnavailable("away") from OSError("connection refused")


def test_an_outage_is_logged_once_and_its_end_once() -> None:
    """However often the database is tried; the next outage is another one."""
    outage = StoreOutage("gone", "back", details=lambda: {"lost_rows": 3})
    with capture_logs() as logs:
        for away in (False, True, True, True, False, False, True):
            _try(outage, away=away)
            assert outage.reachable is not away
    assert [(log["event"], log["log_level"]) for log in logs] == [
        ("gone", "warning"),
        ("back", "info"),
        ("gone", "warning"),
    ]
    assert logs[0]["reason"] == "connection refused"
    assert logs[1]["lost_rows"] == 3


def test_other_faults_are_not_taken_for_an_outage() -> None:
    """A fault of ours must be seen."""
    outage = StoreOutage("gone", "back")
    with pytest.raises(KeyError), outage.tolerated():
        raise KeyError
    assert outage.reachable
