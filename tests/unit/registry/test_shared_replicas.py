"""Who may change a model on a replica that several gateways share."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gateway.registry.registry import Registry
from gateway.registry.shared_replicas import SharedReplicas
from gateway.store.database import Database, open_database
from gateway.store.versions import NewVersion, VersionStore
from tests.eventually import eventually


class _Gateway:
    """One gateway's database, catalog and permits."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.registry = Registry(VersionStore(database))
        self.permits = SharedReplicas(self.registry, lease_s=0.5)

    def desired(self) -> frozenset[int]:
        model = self.registry.catalog.models.get("m")
        return frozenset() if model is None else model.desired


@pytest.fixture
async def gateways(tmp_path: Path) -> AsyncIterator[tuple[_Gateway, _Gateway]]:
    async with AsyncExitStack() as stack:
        opened = []
        for _ in range(2):
            database = await open_database(f"sqlite:///{tmp_path}/gateway.db")
            stack.push_async_callback(database.close)
            opened.append(_Gateway(database))
        signature = {"inputs": [], "outputs": [], "ir_version": 8, "opsets": {}}
        new = NewVersion("m", 1, "d", "s", 1, signature, "", (), "test")
        await opened[0].registry.store.add_version(new, actor="t")
        yield opened[0], opened[1]


async def test_one_gateway_at_a_time_changes_a_model(gateways: tuple[_Gateway, _Gateway]) -> None:
    """A permit for a model keeps the other gateway out, longer than a lease lasts unextended."""
    one, other = gateways
    async with one.permits.ask("r", "m") as held:
        assert held.holds()
        async with other.permits.ask("r", "m") as refused, other.permits.ask("r", "n") as apart:
            assert not refused.holds()
            assert apart.holds()
        await asyncio.sleep(0.8)
        assert held.holds()
        async with other.permits.ask("r", "m") as refused:
            assert not refused.holds()
    assert not held.holds()
    async with other.permits.ask("r", "m") as free:
        assert free.holds()


async def test_a_permit_comes_with_the_catalog_of_now(gateways: tuple[_Gateway, _Gateway]) -> None:
    """What another gateway recorded is known before anything is done."""
    one, other = gateways
    await one.registry.store.set_desired("m", add={1}, actor="t")
    assert other.desired() == frozenset()
    async with other.permits.ask("r", "m") as permit:
        assert permit.holds()
        assert other.desired() == {1}


async def test_without_the_database_there_is_no_permit(
    gateways: tuple[_Gateway, _Gateway], tmp_path: Path
) -> None:
    """Not a new one, and the one that is held ends when its lease does."""
    one, _ = gateways
    async with one.permits.ask("r", "m") as held:
        assert held.holds()
        (tmp_path / "gateway.db").rename(tmp_path / "elsewhere.db")
        await eventually(lambda: not held.holds())
        async with one.permits.ask("r", "n") as refused:
            assert not refused.holds()
