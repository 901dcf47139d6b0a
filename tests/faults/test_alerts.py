"""Alerts: real faults, a real Prometheus, the deployed rules. `perf/alerts.py` has the others."""

from pathlib import Path

from testbed.alert_causes import ENVIRONMENT, RED, asking, dying_triton, halted, hanging_runs
from testbed.gateway_process import running_gateway
from testbed.running_prometheus import needs_prometheus, running_prometheus, until

_WITHIN_S = 30.0


@needs_prometheus
def test_alerts_fire_while_their_fault_lasts_and_clear_after_it(tmp_path: Path) -> None:
    """Hanging runs, a Triton that keeps dying and a halted gateway: each is told, then not."""
    with (
        running_gateway(tmp_path, "--demo", environment=ENVIRONMENT) as gateway,
        running_prometheus(tmp_path, [gateway.url]) as prometheus,
    ):

        def fires(alert: str, **labels: str) -> None:
            until(lambda: prometheus.firing(alert, **labels), within_s=_WITHIN_S, what=alert)

        def clears(alert: str, **labels: str) -> None:
            what = f"{alert} is over"
            until(lambda: prometheus.inactive(alert, **labels), within_s=_WITHIN_S, what=what)

        of_runs = ("GatewayErrorShare", "VersionErrorShare", "GatewaySlow")
        with hanging_runs(gateway, tmp_path):
            for alert in of_runs:
                fires(alert, model="hanging")
        with asking(gateway, "hanging", RED, clients=2):
            for alert in of_runs:
                clears(alert, model="hanging")
        with dying_triton(gateway):
            fires("ReplicaDown", replica="embedded")
            fires("VersionNotReady", model="digits")
        with halted(gateway):
            fires("GatewayDown")
        clears("GatewayDown")
        clears("ReplicaDown")
        clears("VersionNotReady")
        assert prometheus.warnings() == []
