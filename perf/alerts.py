"""
Every alert against its real fault: a gateway with its Triton, a Prometheus with the deployed rules.

    python perf/alerts.py

Each fault is caused and ended; the alert must fire in between and clear afterwards. Only what the
rules wait for (`for:`) is shortened to a second, so that the times below are those of the
expressions: one that looks back ten minutes takes ten minutes to clear. Takes a quarter of an hour;
prints a table and writes perf/results/alerts.json.
"""

import contextlib
import json
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from testbed import alert_causes as causes  # noqa: E402 - after the path
from testbed.gateway_process import GatewayProcess, running_gateway  # noqa: E402
from testbed.running_prometheus import (  # noqa: E402
    RULES,
    RunningPrometheus,
    running_prometheus,
    until,
)

FIRES_WITHIN_S = 180.0
CLEARS_WITHIN_S = 700.0


@dataclass
class Seen:
    """One alert, and how long after its fault began and ended it fired and cleared."""

    alert: str
    fault: str
    labels: dict[str, str]
    fired_s: float = 0.0
    cleared_s: float = 0.0


class Bench:
    """Causes faults and watches alerts. What clears slowly is waited for at the end."""

    def __init__(self, prometheus: RunningPrometheus) -> None:
        self._prometheus = prometheus
        self.seen: list[Seen] = []
        self._waiting: list[threading.Thread] = []
        self._late: list[str] = []

    def show(
        self,
        fault: str,
        cause: causes.Cause,
        *alerts: str,
        good: causes.Cause | None = None,
        **labels: str,
    ) -> None:
        """Cause a fault until its alerts fire; end it; see them clear under good load."""
        found = [Seen(alert, fault, labels) for alert in alerts]
        self.seen += found
        with cause:
            began_s = time.monotonic()
            for seen in found:
                until(
                    lambda seen=seen: self._prometheus.firing(seen.alert, **labels),  # type: ignore[misc]  # bound at once
                    within_s=FIRES_WITHIN_S,
                    what=seen.alert,
                )
                seen.fired_s = round(time.monotonic() - began_s, 1)
                print(f"{seen.alert}: fires after {seen.fired_s} s", flush=True)
        ended_s = time.monotonic()
        thread = threading.Thread(target=self._clear, args=(found, ended_s))
        thread.start()
        if good is None:
            self._waiting.append(thread)
            return
        with good:
            thread.join()

    def finish(self) -> list[str]:
        """Wait for what is still to clear; return what did not."""
        for thread in self._waiting:
            thread.join()
        return self._late

    def _clear(self, found: list[Seen], ended_s: float) -> None:
        for seen in found:
            try:
                until(
                    lambda seen=seen: self._prometheus.inactive(seen.alert, **seen.labels),  # type: ignore[misc]
                    within_s=CLEARS_WITHIN_S,
                    what=f"{seen.alert} clears",
                )
            except AssertionError as error:
                self._late.append(str(error))
            seen.cleared_s = round(time.monotonic() - ended_s, 1)
            print(f"{seen.alert}: cleared after {seen.cleared_s} s", flush=True)


@contextlib.contextmanager
def _two_gateways(folder: Path) -> Iterator[tuple[GatewayProcess, GatewayProcess]]:
    """Run one that is tried hard, and one that may hold few rows of metrics."""
    for name in ("one", "two"):
        (folder / name).mkdir()
    few = {"METRICS_HELD_ROWS": "3"}
    with (
        running_gateway(folder / "one", environment=causes.ENVIRONMENT) as one,
        running_gateway(folder / "two", environment=few) as two,
    ):
        yield one, two


def main() -> None:
    """Show all of them."""
    with (
        tempfile.TemporaryDirectory() as name,
        _two_gateways(folder := Path(name)) as (gateway, other),
        running_prometheus(folder, [gateway.url, other.url]) as prometheus,
    ):
        bench = Bench(prometheus)
        bench.show(
            "the challenger answers other classes",
            causes.failed_rollout(gateway, folder),
            "RolloutFailed",
            model="flipped",
        )
        bench.show("nothing can be stored", causes.locked_database(other), "StoredMetricsLost")
        bench.show(
            "more callers than are let in",
            causes.full_queue(gateway, folder),
            "QueueFull",
            model="busy",
        )
        bench.show(
            "a rollout runs into its deadline",
            causes.waiting_rollout(gateway, folder),
            "RolloutWaiting",
            model="waiting",
        )
        bench.show(
            "runs take longer than they may",
            causes.hanging_runs(gateway, folder),
            "GatewayErrorShare",
            "VersionErrorShare",
            "GatewaySlow",
            good=causes.asking(gateway, "hanging", causes.RED, clients=2),
            model="hanging",
        )
        bench.show(
            "the process of a version dies again and again",
            causes.dying_version(gateway, folder),
            "VersionQuarantined",
            model="mortal",
        )
        bench.show(
            "tritonserver dies as soon as it is started",
            causes.dying_triton(gateway),
            "ReplicaDown",
            "VersionNotReady",
            instance=gateway.url.removeprefix("http://"),
        )
        bench.show(
            "the gateway is halted",
            causes.halted(other),
            "GatewayDown",
            instance=other.url.removeprefix("http://"),
        )
        late = bench.finish()
        warnings = prometheus.warnings()
    for seen in bench.seen:
        print(f"| {seen.alert} | {seen.fault} | {seen.fired_s} s | {seen.cleared_s} s |")
    untried = set(re.findall(r"alert: (\w+)", RULES.read_text())) - {s.alert for s in bench.seen}
    results = {"command": "python perf/alerts.py", "alerts": [asdict(seen) for seen in bench.seen]}
    (CHECKOUT / "perf/results/alerts.json").write_text(json.dumps(results, indent=2) + "\n")
    if late or warnings or untried:
        raise SystemExit(f"not cleared: {late}; warnings: {warnings}; never tried: {untried}")


if __name__ == "__main__":
    main()
