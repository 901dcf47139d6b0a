"""
Rollouts under load against a real Triton: who sees a bad version, and what a shadow costs.

    python -m perf.rollout_in_production [--seconds 15] [--output perf/results/rollouts.json]

For each challenger (equal; flipped labels; failing, or hanging, on a third of the images):
requests until the decision, the share of them that the challenger answered, and the time from the
stored end of the rollout to the last request that began later and met it (0: none). For the shadow:
p50 and p99 of callers without one, without one again (the noise), with one at 100 %, and with a
challenger that hangs.
"""

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.gateway_process import GatewayProcess, running_gateway
from tests.rollout_calls import create, register_two, until
from tests.rollout_family import Load, load

_CHALLENGERS: Mapping[str, Mapping[str, Any]] = {
    "equal": {},
    "flipped labels": {"flipped": True},
    "failing": {"fails": True},
    "hanging": {"hangs": True},
}


def decide(gateway: GatewayProcess, name: str, strategy: Any, challenger: Mapping[str, Any]) -> Any:
    """Run one rollout to its end under load."""
    with tempfile.TemporaryDirectory() as folder:
        register_two(gateway, name, Path(folder), **challenger)
    with load(gateway.url, name, clients=8) as clients:
        began_s = time.time()
        rollout = create(gateway, name, strategy=strategy, steps=[5, 25, 50])
        ended = until(gateway.client, rollout, "Succeeded", "Failed", "Waiting")
        threading.Event().wait(1.0)
    finished_s = datetime.fromisoformat(ended["finished_at"]).timestamp()
    loser = "1" if ended["phase"] == "Succeeded" else "2"
    during = [version for at_s, _, version in clients.log if began_s <= at_s <= finished_s]
    late_s = [at_s - finished_s for at_s, _, v in clients.log if at_s > finished_s and v == loser]
    return {
        "challenger": name,
        "strategy": strategy,
        "phase": ended["phase"],
        "reason": ended["reason"],
        "seconds": round(finished_s - began_s, 1),
        "requests": len(during),
        "share_that_saw_it": round(during.count("2") / max(1, len(during)), 4),
        "wrong_answers": clients.categories[False],
        "statuses": dict(clients.statuses),
        "verdict_to_zero_traffic_ms": round(1000 * max(late_s, default=0.0), 1),
    }


def latencies(clients: Load) -> Any:
    """Summarise what callers waited, in milliseconds."""
    took_ms = sorted(1000 * (ended_s - began_s) for began_s, ended_s, _ in clients.log)
    cuts = statistics.quantiles(took_ms, n=100)
    return {"requests": len(took_ms), "p50_ms": round(cuts[49], 2), "p99_ms": round(cuts[98], 2)}


def shadow_cost(gateway: GatewayProcess, seconds: float) -> Sequence[Any]:
    """Measure callers with and without a shadow at 100 %, one client, so that there is room."""
    rows = []
    for kind, challenger in (("equal", {}), ("hanging", {"hangs": True})):
        name = f"shadow-{kind}"
        with tempfile.TemporaryDirectory() as folder:
            register_two(gateway, name, Path(folder), **challenger)
        for label in ("none", "none again", f"shadow, {kind}"):
            if label.startswith("shadow"):
                create(gateway, name, strategy="shadow", interval_s=3600)
            with load(gateway.url, name, clients=1) as clients:
                threading.Event().wait(seconds)
            rows.append({"shadow": label, **latencies(clients), "statuses": dict(clients.statuses)})
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--output", type=Path, default=Path("perf/results/rollouts.json"))
    options = parser.parse_args()
    environment = {"ROLLOUT_POLL_S": "0.2", "CHALLENGER_TIMEOUT_S": "0.5"}
    with (
        tempfile.TemporaryDirectory() as folder,
        running_gateway(Path(folder), environment=environment) as gateway,
    ):
        rows = [
            decide(gateway, f"{kind.replace(' ', '-')}-{len(strategy)}", strategy, challenger)
            for kind, challenger in _CHALLENGERS.items()
            for strategy in (["shadow", "canary"], ["canary"])
        ]
        result = {"decisions": rows, "shadow": shadow_cost(gateway, options.seconds)}
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
