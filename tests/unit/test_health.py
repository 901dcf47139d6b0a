"""When a gateway is ready, and what only makes it degraded."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from gateway.health import HealthChecks
from gateway.inference.admission import Admission
from gateway.registry.registry import Registry
from gateway.registry.versions import Catalog, Model
from gateway.store.database import Database, open_database
from gateway.store.versions import VersionStore
from gateway.triton.endpoint import TritonEndpoint
from gateway.triton.loads import Failure, LoadStates
from gateway.triton.replica import Replica
from gateway.triton.replicas import ReplicaSet


class _Gateway:
    """The parts of a gateway that its health is about: one live replica, one model, not loaded."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.registry = Registry(VersionStore(database))
        self.replica = Replica("r", TritonEndpoint("127.0.0.1:9", "127.0.0.1:9"))
        self.replica.live = True
        self.replicas = ReplicaSet()
        self.replicas.replicas.append(self.replica)
        self.loads = LoadStates()
        self.admission = Admission(1, 1)
        self.wish("m")
        self.health = HealthChecks(self.registry, self.replicas, self.loads, self.admission)

    def wish(self, *names: str) -> None:
        models = {
            name: Model(name, "test", {}, {}, desired=frozenset({1}), quarantined={})
            for name in names
        }
        self.registry.catalog = replace(Catalog(), models=MappingProxyType(models))

    async def is_ready(self) -> bool:
        return all(check.ok for check in (await self.health.ready()).values())

    async def degraded(self) -> set[str]:
        return {name for name, check in (await self.health.ready()).items() if check.degraded}


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[_Gateway]:
    database = await open_database(f"sqlite:///{tmp_path}/gateway.db")
    yield _Gateway(database)
    await database.close()


async def test_not_ready_before_loads_were_tried(gateway: _Gateway) -> None:
    """Not ready until what should be loaded is, or has failed; then for good."""
    assert not await gateway.is_ready()
    gateway.replica.ready = frozenset({("m", 1)})
    assert await gateway.is_ready()
    gateway.wish("m", "n")
    assert await gateway.is_ready()
    assert await gateway.degraded() == {"loads"}


async def test_not_ready_where_nothing_answers(gateway: _Gateway) -> None:
    """All models failed, or Triton lost them all: others can answer. One of several: degraded."""
    gateway.wish("m", "n")
    for name in ("m", "n"):
        gateway.loads.failures["r", name, 1] = Failure("no", 1, time.monotonic() + 60)
    assert not await gateway.is_ready()
    gateway.replica.ready = frozenset({("n", 1)})
    assert await gateway.is_ready()
    assert await gateway.degraded() == {"loads"}
    gateway.replica.live = False
    assert not await gateway.is_ready()


async def test_a_first_load_changes_nothing(gateway: _Gateway) -> None:
    """Who loads its first model was ready before and is during the load."""
    gateway.wish()
    assert await gateway.is_ready()
    gateway.wish("m")
    gateway.loads.first_loads.add(("m", 1))
    assert await gateway.is_ready()
    assert await gateway.degraded() == set()


async def test_without_the_database_it_is_degraded(gateway: _Gateway, tmp_path: Path) -> None:
    """Runs go on without it, so the gateway stays ready and says what is away."""
    gateway.replica.ready = frozenset({("m", 1)})
    assert await gateway.degraded() == set()
    (tmp_path / "gateway.db").rename(tmp_path / "elsewhere.db")
    assert await gateway.is_ready()
    assert await gateway.degraded() == {"database"}


async def test_a_database_that_hangs_is_not_waited_for(
    gateway: _Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many ask at once, and one query is under way; each is answered at once."""
    gateway.replica.ready = frozenset({("m", 1)})
    asked, answer = [], asyncio.Event()

    async def hang() -> int:
        asked.append(1)
        await answer.wait()
        return 1

    monkeypatch.setattr(gateway.registry.store, "generation", hang)
    began_s = time.monotonic()
    for _ in range(3):
        found = await asyncio.gather(*(gateway.degraded() for _ in range(20)))
        assert found == [{"database"}] * 20
    assert time.monotonic() - began_s < 5.0
    assert len(asked) == 1
    answer.set()
    await asyncio.sleep(0)
    assert await gateway.is_ready()


async def test_who_is_about_to_stop_is_not_ready(gateway: _Gateway) -> None:
    """After SIGTERM it still answers, and says that it will not for long."""
    gateway.replica.ready = frozenset({("m", 1)})
    gateway.admission.leaving = True
    assert not await gateway.is_ready()


async def test_one_of_two_replicas_is_enough(gateway: _Gateway) -> None:
    """A replica that cannot be reached makes the gateway degraded while another one answers."""
    gateway.replica.ready = frozenset({("m", 1)})
    gateway.replicas.replicas.append(
        Replica("away", TritonEndpoint("127.0.0.1:10", "127.0.0.1:10"))
    )
    assert await gateway.is_ready()
    assert await gateway.degraded() == {"replicas"}
