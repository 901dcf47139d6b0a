"""
Many requests, and what grows: memory of the gateway and of Triton, open files, shared memory.

    python -m perf.soak --requests 100000
    python -m perf.soak --requests 100000 --kill-every 20 --reload-every 15

`--kill-every` ends tritonserver and a model's process in turn with SIGKILL, under load; answers of
503 are then expected. `--reload-every` unloads and loads the model, under load. Every other stretch
is then left in peace, once all models are as they should be: all must answer, and it gives new
processes and old ones the same load before they are compared.

    python -m perf.soak --requests 100000 --leak 100

`--leak` builds a leak of so many MB into the gateway: the negative control, which must fail.

The exit code is 1 when anything has grown that should not, when something was left behind in
/dev/shm, when a request failed that should not, or when the gateway does not answer rightly at the
end.
"""

import argparse
import contextlib
import itertools
import json
import statistics
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import httpx
import psutil
from rich.console import Console
from rich.table import Table

from perf.bench import load, machine
from perf.bench.servers import CHECKOUT, PLANS, Server, running_servers
from perf.bench.workloads import make_workloads
from perf.soak_watcher import Sample, Watcher

GROWTH_BYTES = 10 * 2**20
_CHUNK_S = 5
_EDGE = 3  # samples at either end that are compared


def judge(samples: list[Sample], warm_up: int) -> list[str]:
    """
    Say what has grown since `warm_up` requests. Memory: the medians of the first three samples and
    of the last three. Files and regions: the fewest at the end and the most at the beginning, since
    a connection that is being closed is not a leak.
    """
    warm = [sample for sample in samples if sample.requests >= warm_up]
    if len(warm) < 2 * _EDGE:
        return [f"{len(warm)} samples after the warm-up are too few: more requests are needed"]
    first, last = warm[:_EDGE], warm[-_EDGE:]
    found = []
    for name in ("gateway_bytes", "triton_bytes"):
        before = statistics.median(getattr(sample, name) for sample in first)
        after = statistics.median(getattr(sample, name) for sample in last)
        if after - before >= GROWTH_BYTES:
            found.append(f"{name} grew by {(after - before) / 2**20:.1f} MiB")
    for name in ("gateway_files", "triton_files", "regions"):
        before = max(getattr(sample, name) for sample in first)
        after = min(getattr(sample, name) for sample in last)
        if after > before:
            found.append(f"{name} grew from {before} to {after}")
    return found


def killer(watcher: Watcher) -> Callable[[], None]:
    """Give what ends tritonserver and a model's process in turn."""
    turns = itertools.cycle((True, False))

    def kill() -> None:
        triton = watcher.triton()
        if triton is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            stubs = triton.children()
            victim = triton if next(turns) or not stubs else stubs[0]
            victim.kill()

    return kill


def reloader(server: Server) -> Callable[[], None]:
    """Give what unloads and loads the model. A call that fails is seen by the requests."""
    base, model = server.url.partition("/api")[0], server.workload.model.stem

    def reload() -> None:
        with httpx.Client(base_url=base, timeout=120.0, trust_env=False) as client:
            for call in ("unload", "load"):
                client.post(f"/api/v1/{call}", params={"name": model})

    return reload


@contextlib.contextmanager
def every(seconds: float, act: Callable[[], None], calm: threading.Lock) -> Iterator[None]:
    """
    Act again and again in a thread for the length of the block; 0 seconds: never. Whoever holds
    `calm` is not disturbed.
    """
    ended = threading.Event()

    def go() -> None:
        while not ended.wait(seconds):
            with calm:
                act()

    thread = threading.Thread(target=go)
    if seconds > 0:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if seconds > 0:
            thread.join()


@dataclass
class Soaked:
    """What a soak found: its samples, and the requests that failed in peace and among faults."""

    samples: list[Sample]
    answered: int = 0
    failed_in_peace: int = 0
    failed_among_faults: int = 0


def soak(server: Server, watcher: Watcher, arguments: argparse.Namespace) -> Soaked:
    """
    Load in stretches. A sample is taken after each that was left in peace; it raises if the gateway
    does not answer rightly after one that was not.
    """
    faults = arguments.kill_every > 0 or arguments.reload_every > 0
    soaked, calm, stubs = Soaked([]), threading.Lock(), watcher.stubs()

    def stretch() -> int:
        done = load.run_load(
            server.url,
            server.workload.body,
            concurrency=arguments.concurrency,
            seconds=_CHUNK_S,
        )
        soaked.answered += done.requests - done.errors
        return done.errors

    with (
        every(arguments.kill_every, killer(watcher), calm),
        every(arguments.reload_every, reloader(server), calm),
    ):
        while soaked.answered < arguments.requests:
            if faults:
                soaked.failed_among_faults += stretch()
            with calm:
                server.wait_until_ready()
                watcher.settle(stubs)
                soaked.failed_in_peace += stretch()
                soaked.samples.append(watcher.look(soaked.answered))
            failed = soaked.failed_among_faults, soaked.failed_in_peace
            print(soaked.samples[-1], f"errors={failed[0]}+{failed[1]}", flush=True)
    return soaked


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m perf.soak")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--warm-up", type=int, help="requests; default: a fifth")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--kill-every", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--reload-every", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--leak", type=int, default=0, metavar="MB")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    if arguments.output is None:
        name = "soak_leak.json" if arguments.leak else "soak.json"
        arguments.output = CHECKOUT / "perf/results" / name
    if arguments.warm_up is None:
        arguments.warm_up = arguments.requests // 5
    return arguments


def leaking(arguments: argparse.Namespace) -> str:
    """Make a plan of a gateway that keeps some bytes of every run, and name it."""
    environment = {
        "PYTHONPATH": str(CHECKOUT / "perf/leak"),
        "LEAK_BYTES": str(arguments.leak * 1_000_000 // arguments.requests),
    }
    PLANS["gateway-leaking"] = replace(PLANS["gateway"], environment=tuple(environment.items()))
    return "gateway-leaking"


def main() -> int:
    """Soak, judge, print and write."""
    arguments = read_arguments()
    load.ensure_wrk()
    described = machine.describe(CHECKOUT, "perf.soak")
    with tempfile.TemporaryDirectory(prefix="soak-") as place:
        workload = make_workloads(Path(place))["W2"]
        name = leaking(arguments) if arguments.leak else "gateway"
        with running_servers([name], workload, Path(place) / "run") as running:
            server = running[name]
            watcher = Watcher(server)
            soaked = soak(server, watcher, arguments)
    samples = soaked.samples
    failed = soaked.failed_in_peace + soaked.failed_among_faults
    found = judge(samples, arguments.warm_up)
    found += [f"left behind: {path}" for path in watcher.left_behind()]
    if soaked.failed_in_peace:
        found.append(f"{soaked.failed_in_peace} requests failed in peace")
    result = {
        "machine": described,
        "errors": failed,
        "failed_in_peace": soaked.failed_in_peace,
        "found": found,
        "samples": [asdict(sample) for sample in samples],
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    table = Table("", *Sample.__dataclass_fields__)
    for name, sample in (("first", samples[0]), ("last", samples[-1])):
        table.add_row(name, *(f"{value:,}" for value in asdict(sample).values()))
    Console().print(table)
    print("\n".join(found) or f"Nothing grew; {failed} failed, {soaked.answered} did not.")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
