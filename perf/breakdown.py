"""
Where the time of one request goes: the stages that every answer tells in `Server-Timing`, and what
Triton's own statistics say about the part that is spent in it.

    python -m perf.breakdown

Mean milliseconds, so that the parts add up to the whole:

http     from the client's first byte to its last, less what follows: the connection, the JSON
decode   base64 and JPEG to pixels, waiting for a thread included
queue    waiting for a place among the requests that are worked on at once
ipc      in `infer`, but not in Triton's account of it: gRPC and the way there and back
triton   waiting in Triton for an instance of the model
model    the instance: input, inference and output

Prints a table and writes perf/results/breakdown.json.
"""

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import psutil
import tritonclient.grpc as triton_grpc
from rich.console import Console
from rich.table import Table

from gateway.triton.endpoint import TritonEndpoint
from perf.bench import load, machine
from perf.bench.servers import CHECKOUT, Server, running_servers
from perf.bench.workloads import Workload, make_workloads

_SCRIPT = Path(load.__file__).with_name("stages.lua")
_WARM_UP_S = 3


@dataclass(frozen=True)
class Breakdown:
    """Mean milliseconds of one request, by stage; `total_ms` is their sum."""

    workload: str
    clients: int
    http_ms: float
    decode_ms: float
    queue_ms: float
    ipc_ms: float
    triton_ms: float
    model_ms: float
    total_ms: float
    answers: int


@dataclass(frozen=True)
class TritonAccount:
    """What Triton has spent on a model's successful requests since it was loaded."""

    requests: int
    queue_ns: int
    model_ns: int


def embedded_triton(server: Server) -> TritonEndpoint:
    """Give the Triton that a gateway embeds; its command line and its folder tell where it is."""
    for process in psutil.Process(server.pid).children(recursive=True):
        if process.name() == "tritonserver":
            http, grpc = (
                next(word for word in process.cmdline() if word.startswith(f"--{service}-port="))
                for service in ("http", "grpc")
            )
            return TritonEndpoint(
                http_url=f"127.0.0.1:{http.partition('=')[2]}",
                grpc_url=f"127.0.0.1:{grpc.partition('=')[2]}",
                admin_key=(Path(process.cwd()).parent / "admin-key").read_text(),
            )
    raise LookupError("the gateway has no tritonserver")


def account(endpoint: TritonEndpoint, model: str) -> TritonAccount:
    """Read Triton's statistics of a model."""
    with triton_grpc.InferenceServerClient(endpoint.grpc_url) as client:
        told = client.get_inference_statistics(model, headers=endpoint.admin_metadata)
    one = told.model_stats[0].inference_stats
    parts = (one.compute_input, one.compute_infer, one.compute_output)
    return TritonAccount(one.success.count, one.queue.ns, sum(part.ns for part in parts))


def break_down(
    workload: str, clients: int, told: dict[str, float], before: TritonAccount, after: TritonAccount
) -> Breakdown:
    """Divide a request's time; raises ValueError when there was an error or no answer."""
    requests = after.requests - before.requests
    if told["errors"] or not told["answers"] or not requests:
        raise ValueError(f"{workload}, {clients} clients: {told}")
    triton_ms = (after.queue_ns - before.queue_ns) / requests / 1e6
    model_ms = (after.model_ns - before.model_ns) / requests / 1e6
    stages_ms = told["decode_ms"] + told["queue_ms"] + told["infer_ms"]
    return Breakdown(
        workload=workload,
        clients=clients,
        http_ms=told["total_ms"] - stages_ms,
        decode_ms=told["decode_ms"],
        queue_ms=told["queue_ms"],
        ipc_ms=told["infer_ms"] - triton_ms - model_ms,
        triton_ms=triton_ms,
        model_ms=model_ms,
        total_ms=told["total_ms"],
        answers=int(told["answers"]),
    )


def measure(workload: Workload, steps: list[int], seconds: int, folder: Path) -> list[Breakdown]:
    """Run a gateway with the workload's model and take its requests apart."""
    found = []
    with running_servers(["gateway"], workload, folder) as running:
        server, model = running["gateway"], workload.model.stem
        triton = embedded_triton(server)
        load.run_load(server.url, workload.body, concurrency=4, seconds=_WARM_UP_S)
        for clients in steps:
            before = account(triton, model)
            told = load.run_script(
                _SCRIPT, server.url, workload.body, concurrency=clients, seconds=seconds
            )
            found.append(break_down(workload.name, clients, told, before, account(triton, model)))
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m perf.breakdown")
    parser.add_argument("--workloads", default="W1,W2,W3")
    parser.add_argument("--concurrency", default="1,16")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--output", type=Path, default=CHECKOUT / "perf/results/breakdown.json")
    arguments = parser.parse_args()
    load.ensure_wrk()
    described, found = machine.describe(CHECKOUT, "perf.breakdown"), []
    steps = [int(number) for number in arguments.concurrency.split(",")]
    with tempfile.TemporaryDirectory(prefix="breakdown-") as place:
        made = make_workloads(Path(place))
        for name in arguments.workloads.split(","):
            found += measure(made[name], steps, arguments.seconds, Path(place) / f"run-{name}")
    result = {"machine": described, "rows": [asdict(row) for row in found]}
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    table = Table(*(field.name for field in fields(Breakdown)))
    for row in found:
        values = asdict(row).values()
        table.add_row(*(f"{v:.2f}" if isinstance(v, float) else str(v) for v in values))
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
