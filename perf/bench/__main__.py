"""
Measure the gateway beside other servers.

    python -m perf.bench                    the full comparison, about 75 minutes
    python -m perf.bench --quick            one short round, to see that everything works

For each workload all servers run side by side, idle but the one that is measured; in each round
every server has its turn under every concurrency, in an order that shifts from round to round.
Prints a table; writes perf/results/bench.json and, with matplotlib in a virtual environment of its
own, bench.svg beside it.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from perf.bench import load, machine, plotting, processes, servers, tables
from perf.bench.measuring import IDLE_WATCH_S, measure
from perf.bench.servers import CHECKOUT, Server
from perf.bench.summary import Cell, summarise
from perf.bench.workloads import Workload, make_workloads

WARM_UP_S = 3
WARM_UP_CONCURRENCY = 4


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m perf.bench", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--servers", default="gateway,original,litserve,kserve,mlserver,bentoml,ray"
    )
    parser.add_argument("--workloads", default="W1,W2,W3")
    parser.add_argument("--concurrency", default="1,4,16,64")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=8, help="length of one cell")
    parser.add_argument("--quick", action="store_true", help="one round of 2 s at 4 clients")
    parser.add_argument("--output", type=Path, default=CHECKOUT / "perf/results/bench.json")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds, arguments.concurrency = 1, 2, "4"
    unknown = set(arguments.servers.split(",")) - set(servers.PLANS)
    if unknown:
        parser.error(f"unknown servers {sorted(unknown)}; there are {list(servers.PLANS)}")
    return arguments


def idle_cores(running: dict[str, Server]) -> dict[str, float]:
    """Give what each server uses while nobody asks, in cores."""
    before = {name: processes.cpu_s(server.pid) for name, server in running.items()}
    time.sleep(IDLE_WATCH_S)  # A measurement over time, not a wait for an event.
    return {
        name: (processes.cpu_s(server.pid) - before[name]) / IDLE_WATCH_S
        for name, server in running.items()
    }


def compare(
    names: list[str], workload: Workload, arguments: argparse.Namespace, folder: Path
) -> tuple[list[Cell], dict[str, float]]:
    """Run all rounds of one workload."""
    cells = []
    steps = [int(number) for number in arguments.concurrency.split(",")]
    with servers.running_servers(names, workload, folder) as running:
        for server in running.values():
            load.run_load(
                server.url, workload.body, concurrency=WARM_UP_CONCURRENCY, seconds=WARM_UP_S
            )
        idle = idle_cores(running)
        for round_ in range(arguments.rounds):
            shift = round_ % len(names)
            for concurrency in steps:
                for name in names[shift:] + names[:shift]:
                    cell = measure(
                        running[name],
                        concurrency=concurrency,
                        seconds=arguments.seconds,
                        round_=round_,
                    )
                    cells.append(cell)
                    print(
                        f"{workload.name} round {round_ + 1}, {concurrency} clients, {name}: "
                        f"{cell.rate:.1f}/s, p99 {cell.p99_ms:.1f} ms, {cell.errors} errors",
                        flush=True,
                    )
        for server in running.values():
            server.check()
    return cells, idle


def main() -> int:
    """Install, measure, print and write. The exit code is 1 when a cell is invalid."""
    arguments = read_arguments()
    # SIGTERM ends the servers too: the blocks below are left.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    names = arguments.servers.split(",")
    load.ensure_wrk()
    for name in names:
        servers.install(name)
    described = machine.describe(CHECKOUT, "perf.bench")
    cells: list[Cell] = []
    idle: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        made = make_workloads(Path(place))
        for name in arguments.workloads.split(","):
            done, idle[name] = compare(names, made[name], arguments, Path(place) / f"run-{name}")
            cells += done
    rows = summarise(cells)
    result = {
        "machine": described,
        "peers": {name: servers.versions(name) for name in names},
        "workloads": {name: made[name].what for name in arguments.workloads.split(",")},
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "idle_cores": idle,
        "rows": [asdict(row) for row in rows],
        "cells": [asdict(cell) for cell in cells],
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    tables.print_rows(rows)
    plotting.plot(arguments.output)
    print(f"Written: {arguments.output}")
    return int(any(cell.errors for cell in cells))


if __name__ == "__main__":
    sys.exit(main())
