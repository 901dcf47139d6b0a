"""
Rollouts under load, through HTTP, against a real Triton.

    nice -n 5 python -m perf.rollout_in_production decisions [--only TITLE …] [--times 3]
        [--within-s 120] [--for-s 280] [--output perf/results/rollout_decisions.jsonl]
    python -m perf.rollout_in_production switching [--seconds 10]
    python -m perf.rollout_in_production shadow_cost [--rounds 8] [--seconds 6]
    python -m perf.rollout_in_production shadow_throughput [--rounds 8] [--seconds 6]
    python -m perf.rollout_in_production list

decisions    Versions whose truth is known (`rollout_cases`) are tried under load, and promoted or
             rolled back by themselves. Told are: how each ended, after how many seconds and
             requests, the share of them that the challenger answered, and requests that failed.
             Each rollout is a line that is added to the output; the table is of all lines.
switching    200 callers while a version is promoted, rolled back and the alias moved by hand: how
             many were failed, or answered by a version that was not in force.
shadow_cost  What callers get with a shadow at 100 % and without one, in turns, so that what else
             the machine does falls on both.
shadow_throughput  Requests a second of 4 and 16 callers that do not pause, with a shadow at 100 %
             and without one, in turns.
list         The titles of what `decisions` tries.
"""

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.demo import FIRST_VERSION as FIRST
from gateway.demo import SECOND_VERSION as SECOND
from perf import rollout_versions
from perf.rollout_calls import load_version, register_versions
from perf.rollout_cases import CASES
from perf.rollout_decisions import decisions, read_rows, table
from perf.rollout_shadow_cost import shadow_cost, shadow_throughput
from testbed.gateway_process import GatewayProcess, running_gateway
from testbed.rollout_load import Load
from testbed.rollout_switching import switch

_ENVIRONMENT = {"CHALLENGER_TIMEOUT_S": "0.5", "MAX_WAITING_RUNS": "1000"}
_RESULTS = Path("perf/results")


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


_PARTS: Mapping[str, Callable[[GatewayProcess, argparse.Namespace], Any]] = {
    "switching": switching,
    "shadow_cost": shadow_cost,
    "shadow_throughput": shadow_throughput,
}


def _decide(gateway: GatewayProcess, options: argparse.Namespace) -> None:
    """Add a line for each rollout, so that what was measured is kept whatever comes later."""
    output = options.output or _RESULTS / "rollout_decisions.jsonl"
    for row in decisions(gateway, options):
        row |= {"at": datetime.now(UTC).isoformat(timespec="seconds"), **_machine()}
        with output.open("a") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        print(json.dumps(row, ensure_ascii=False), flush=True)
    print(table(read_rows(output)))


def _measure(gateway: GatewayProcess, options: argparse.Namespace) -> None:
    """Put what one of the other parts measures in place of what it measured before."""
    output = options.output or _RESULTS / "rollouts.json"
    found = json.loads(output.read_text()) if output.exists() else {}
    measured = _PARTS[options.part](gateway, options)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    found[options.part] = {"at": at, **_machine(), "rows": measured}
    output.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(measured, indent=2))


def _machine() -> dict[str, Any]:
    return {"cores": os.cpu_count(), "load_1m": round(os.getloadavg()[0], 2)}


def main() -> None:
    """Measure one part in a gateway of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("part", choices=["decisions", *_PARTS, "list"])
    parser.add_argument("--only", nargs="*", choices=CASES, help="Decide only about these.")
    parser.add_argument("--times", type=int, default=3, help="Rollouts of each case.")
    parser.add_argument("--within-s", type=float, default=120.0, help="The longest of a rollout.")
    parser.add_argument("--for-s", type=float, default=280.0, help="Begin none after so long.")
    parser.add_argument("--seconds", type=float, default=10.0, help="Of each turn.")
    parser.add_argument("--rounds", type=int, default=8, help="Of the shadow's cost.")
    parser.add_argument("--pause-ms", type=float, default=10.0, help="Of the shadow's one caller.")
    parser.add_argument("--output", type=Path, help="Where the numbers go.")
    options = parser.parse_args()
    if options.part == "list":
        print("\n".join(CASES))
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        running_gateway(Path(folder), environment=_ENVIRONMENT) as gateway,
    ):
        (_decide if options.part == "decisions" else _measure)(gateway, options)


if __name__ == "__main__":
    main()
