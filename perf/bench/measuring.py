"""One cell: a server alone under load, its processes watched; the others are up and idle."""

from perf.bench import load, processes
from perf.bench.processes import MachineClock
from perf.bench.servers import Server
from perf.bench.summary import Cell

IDLE_WATCH_S = 2.0


def measure(server: Server, *, concurrency: int, seconds: int, round_: int) -> Cell:
    """
    Load it for so many seconds. CPU time is that of its process tree from wrk's start to its end,
    over the answers that wrk counted; `other_cores` is what neither the server nor wrk used: what
    the idle servers and everything else on the machine took, in cores.
    """
    cpu_before_s, before = processes.cpu_s(server.pid), MachineClock.now()
    done = load.run_load(server.url, server.workload.body, concurrency=concurrency, seconds=seconds)
    cpu_s = processes.cpu_s(server.pid) - cpu_before_s
    after = MachineClock.now()
    other_s = (after.busy_s - before.busy_s) - cpu_s - (after.load_s - before.load_s)
    return Cell(
        workload=server.workload.name,
        concurrency=concurrency,
        server=server.name,
        round=round_,
        requests=done.requests,
        rate=done.rate,
        p50_ms=done.p50_ms,
        p99_ms=done.p99_ms,
        cpu_ms=1000 * cpu_s / max(done.requests, 1),
        memory_bytes=processes.pss_bytes(server.pid),
        other_cores=max(0.0, other_s / done.duration_s),
        errors=done.errors,
    )
