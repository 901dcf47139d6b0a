"""In which order a replica that has nothing is asked to load what should be loaded."""

import asyncio

import pytest

from gateway.triton import reconciler as reconciler_module
from gateway.triton.actions import DesiredModel
from gateway.triton.endpoint import TritonEndpoint
from gateway.triton.reconciler import Reconciler
from gateway.triton.replicas import Replica
from tests.eventually import eventually


class _Asked:
    """A replica that is asked, and the loads under way on it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.replica = Replica("r", TritonEndpoint("127.0.0.1:9", "127.0.0.1:9"))
        self.replica.live = True
        self.order: list[str] = []
        self.most = 0
        self.hanging: frozenset[str] = frozenset()
        self._under_way = 0
        monkeypatch.setattr(self.replica.client, "load", self._load)

    async def _load(self, name: str, *_: object, **__: object) -> None:
        self.order.append(name)
        self._under_way += 1
        self.most = max(self.most, self._under_way)
        if name in self.hanging:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        self._under_way -= 1


def _reconciler(*models: tuple[str, bool]) -> Reconciler:
    desired = {
        name: DesiredModel(name, "{}", frozenset({1}), urgent=urgent) for name, urgent in models
    }
    return Reconciler(lambda: desired, load_timeout_s=60)


async def test_champions_come_first_and_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What answers callers who pin nothing is loaded before what does not, as cores allow."""
    asked = _Asked(monkeypatch)
    monkeypatch.setattr(reconciler_module, "_LOADS_AT_ONCE", 3)
    models = [(f"m{number}", number % 2 == 1) for number in range(20)]
    await _reconciler(*models).reconcile(asked.replica)
    urgent = {name for name, first in models if first}
    assert set(asked.order[: len(urgent)]) == urgent
    assert len(asked.order) == len(models)
    assert asked.most == 3
    await asked.replica.client.close()


async def test_hanging_loads_keep_no_other_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for a turn goes on without one after a while."""
    asked = _Asked(monkeypatch)
    asked.hanging = frozenset({"a", "b"})
    monkeypatch.setattr(reconciler_module, "_LOADS_AT_ONCE", 2)
    monkeypatch.setattr(reconciler_module, "_TURN_S", 0.05)
    reconciling = asyncio.create_task(
        _reconciler(("a", True), ("b", True), ("c", False)).reconcile(asked.replica)
    )
    await eventually(lambda: ("c", 1) in asked.replica.ready)
    reconciling.cancel()
    await asked.replica.client.close()
