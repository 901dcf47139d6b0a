"""
Rollouts of the demo model under load, through HTTP, against a real Triton.

    nice -n 5 python -m perf.rollout_in_production [decisions] [switching] [shadow_cost]
        [--only worse slow …] [--clients 4] [--pause-ms 10] [--seconds 10] [--rounds 5]
        [--output perf/results/rollouts.json]

decisions    A better version (90.0 % → 97.3 %) is to be promoted, and a worse, a slow (+50 %), a
             failing (5 %), a flipped and a hanging one to be rolled back, all by themselves. Told
             are: the requests until the decision, the share of them that the challenger answered,
             and how long after the verdict a caller still got an answer of the version that lost.
switching    200 callers while a version is promoted, rolled back and the alias moved by hand: how
             many were failed, or answered by a version that was not in force.
shadow_cost  What a caller waits without a shadow, without one again (the noise), with one at 100 %,
             and with one whose challenger hangs: in turns, so that what else the machine does
             falls on all. A version can hang by computing alone, so its processes are held to one
             core, and compared with no shadow while other processes take that core.

Everything that bad versions are made of: `rollout_versions`.
"""

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from gateway.demo import FIRST_VERSION as FIRST
from gateway.demo import SECOND_VERSION as SECOND
from perf import rollout_versions
from perf.rollout_calls import load_version, register_versions
from perf.rollout_decisions import decisions
from perf.rollout_shadow_cost import shadow_cost
from testbed.gateway_process import GatewayProcess, running_gateway
from testbed.rollout_load import Load
from testbed.rollout_switching import switch

_ENVIRONMENT = {
    "CHALLENGER_TIMEOUT_S": "0.5",
    "MAX_WAITING_RUNS": "1000",
}


def switching(gateway: GatewayProcess, options: argparse.Namespace) -> dict[str, Any]:
    """Move traffic to and fro under 200 callers."""
    register_versions(gateway, "switching", FIRST, SECOND)
    load_version(gateway, "switching", version=2)
    sent = rollout_versions.pictures()
    with Load(gateway.url, "switching", sent, clients=200) as load:
        done = switch(gateway.url, "switching", load, seconds=options.seconds)
    took_ms = [1000 * answer.took_s for answer in load.answers]
    return {
        "callers": 200,
        "changes": len(done.changes),
        "requests": len(load.answers),
        "statuses": dict(load.statuses),
        "transport_errors": len(load.errors),
        "answered_by_a_version_not_in_force": len(done.illegal(load.answers)),
        "p99_ms": round(statistics.quantiles(took_ms, n=100)[98], 1),
    }


_HEADS = {
    "decisions": (
        ("challenger", "challenger"),
        ("strategy", "strategy"),
        ("end", "phase"),
        ("seconds", "seconds"),
        ("requests until then", "requests"),
        ("share that saw it", "share_that_saw_it"),
        ("verdict to zero traffic, ms", "verdict_to_zero_traffic_ms"),
        ("statuses", "statuses"),
    ),
    "switching": (
        ("callers", "callers"),
        ("changes", "changes"),
        ("requests", "requests"),
        ("statuses", "statuses"),
        ("not in force", "answered_by_a_version_not_in_force"),
        ("p99, ms", "p99_ms"),
    ),
    "shadow_cost": (
        ("shadow", "shadow"),
        ("requests", "requests"),
        ("p50, ms", "p50_ms"),
        ("p99, ms", "p99_ms"),
        ("p99 of each round, ms", "p99_ms_of_each_round"),
    ),
}


def table(part: str, rows: Sequence[dict[str, Any]]) -> str:
    """Write rows as a Markdown table."""
    lines = [
        "| " + " | ".join(head for head, _ in _HEADS[part]) + " |",
        "|---" * len(_HEADS[part]) + "|",
    ]
    lines += ["| " + " | ".join(str(row[key]) for _, key in _HEADS[part]) + " |" for row in rows]
    return "\n".join(lines)


_PARTS: dict[str, Callable[[GatewayProcess, argparse.Namespace], Any]] = {
    "decisions": decisions,
    "switching": switching,
    "shadow_cost": shadow_cost,
}


def main() -> None:
    """Measure, print tables and JSON, and put them beside what was measured before."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("parts", nargs="*", choices=[[], *_PARTS], default=list(_PARTS))
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--pause-ms", type=float, default=10.0, help="Between two requests.")
    parser.add_argument("--only", nargs="*", help="Decide only about these challengers.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("perf/results/rollouts.json"))
    options = parser.parse_args()
    found = json.loads(options.output.read_text()) if options.output.exists() else {}
    for part in options.parts:
        # A gateway of its own, so that one part leaves nothing for the next.
        with (
            tempfile.TemporaryDirectory() as folder,
            running_gateway(Path(folder), environment=_ENVIRONMENT) as gateway,
        ):
            measured = _PARTS[part](gateway, options)
        cores, at = os.cpu_count(), datetime.now().astimezone().isoformat(timespec="seconds")
        found[part] = {"at": at, "cores": cores, "load_1m": os.getloadavg()[0], "rows": measured}
        print(table(part, measured if isinstance(measured, list) else [measured]), flush=True)
        options.output.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps({part: found[part] for part in options.parts}))


if __name__ == "__main__":
    main()
