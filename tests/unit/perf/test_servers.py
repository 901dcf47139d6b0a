"""The servers that are compared: their processes are all counted, and all ended."""

import os
from pathlib import Path

import psutil
import pytest

from perf.bench import processes, servers
from perf.bench.servers import Plan, Server
from perf.bench.workloads import Workload
from tests.eventually import eventually

# As daemons are made: a session of its own, and a parent that ends.
_DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
os.wait()
time.sleep(600)
"""


@pytest.mark.parametrize("crash", [False, True], ids=["stopped", "crashed"])
async def test_a_daemon_is_counted_and_ended_with_its_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, crash: bool
) -> None:
    """A process that leaves its parent stays in the server's tree, and is gone after `stop`."""
    monkeypatch.setitem(servers.PLANS, "daemon", Plan(("-c", _DAEMON), "/"))
    server = Server("daemon", Workload("W", "", tmp_path / "m.onnx", tmp_path / "b", ""), tmp_path)
    await eventually(lambda: _sleepers(server.pid) == 2)
    tree = processes.tree(server.pid)
    if crash:
        server.look()
        psutil.Process(server.pid).kill()
    server.stop()
    gone, alive = psutil.wait_procs(tree, timeout=10)
    assert (len(gone), alive) == (2, [])


def _sleepers(pid: int) -> int:
    """Count the tree's processes once the one that led the daemon's session is gone."""
    found = processes.tree(pid)
    try:
        led = any(os.getsid(process.pid) == process.pid for process in found[1:])
    except ProcessLookupError:
        return 0  # It went in this moment.
    return 0 if led else len(found)


def test_every_peer_runs_the_same_libraries() -> None:
    """All lists pin one onnxruntime, one numpy and one Pillow: the work itself is the same."""
    lists = {name: servers.versions(name) for name, plan in servers.PLANS.items() if plan.venv}
    for package in ("onnxruntime", "numpy", "pillow"):
        assert len({pins[package] for pins in lists.values()}) == 1, package
