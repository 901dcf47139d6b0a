"""
Two gateways on one database, interleaved on purpose: one of two transactions stands still in the
middle while the other begins. Whoever comes second waits and then sees what the first has done.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.errors import GatewayError, VersionInUse, VersionNotFound
from gateway.rollouts.state.plan import Plan, Stage
from gateway.rollouts.state.transitions import begin
from gateway.store import registrations, rollouts, versions
from gateway.store.database import Database
from gateway.store.registrations import Claim, RegistrationStore
from gateway.store.rollouts import RolloutStore
from gateway.store.versions import NewVersion, VersionStore


class _Gateway:
    """One gateway's stores."""

    def __init__(self, database: Database) -> None:
        self.versions = VersionStore(database)
        self.registrations = RegistrationStore(database)
        self.rollouts = RolloutStore(database)

    async def load(self) -> None:
        await self.versions.set_desired("m", add={2}, actor="t")

    async def delete(self) -> None:
        await self.registrations.delete_versions("m", [2], whole=False, owner="b", actor="t")

    async def name(self) -> None:
        await self.registrations.point_alias("m", "challenger", 2, expected=None, actor="t")

    async def make_champion(self) -> None:
        await self.versions.replace_champion("m", 2, swap_desired=True, actor="t")

    async def roll_out(self) -> None:
        plan = Plan(stages=(Stage.of("canary"),))
        rollout, _ = begin(rollout_id="r", model="m", champion=1, challenger=2, plan=plan, now=1.0)
        await self.rollouts.create(rollout.to_json(), loaded_challenger=False, gate=None, actor="t")

    async def claim(self, record: str = "") -> Claim:
        return await self.registrations.claim(
            "m", source_digest="bytes", record_digest=record, owner="a", at_least=1
        )

    async def record(self, number: int) -> None:
        await self.versions.add_version(_version(number, "bytes"), actor="t")


def _version(number: int, source: str = "s") -> NewVersion:
    return NewVersion("m", number, "d", source, 1, {}, "", (), "test")


@pytest.fixture
async def gateways(two_gateways: tuple[Database, Database]) -> tuple[_Gateway, _Gateway]:
    one, other = two_gateways
    for number in (1, 2):
        await VersionStore(one).add_version(_version(number), actor="t")
    return _Gateway(one), _Gateway(other)


class _Pause:
    """The first call of a function stands still, after it or before it, until it is let go."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *places: tuple[Any, str], before: bool = False
    ) -> None:
        self.reached, self.let_go = asyncio.Event(), asyncio.Event()
        self._before = before
        for module, name in places:
            monkeypatch.setattr(module, name, self._around(getattr(module, name)))

    def _around(self, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def paused(*given: Any) -> Any:
            first = not self.reached.is_set()
            if first and self._before:
                await self._stand_still()
            done = await function(*given)
            if first and not self._before:
                await self._stand_still()
            return done

        return paused

    async def _stand_still(self) -> None:
        self.reached.set()
        await self.let_go.wait()


async def _interleave(
    pause: _Pause, first: Awaitable[Any], second: Awaitable[Any]
) -> tuple[Any, Any]:
    """Begin the second while the first stands still, and return what came of both."""
    one = asyncio.ensure_future(first)
    await pause.reached.wait()
    other = asyncio.ensure_future(second)
    assert not (await asyncio.wait([other], timeout=0.3))[0], "it did not wait"
    pause.let_go.set()
    done = await asyncio.gather(one, other, return_exceptions=True)
    return done[0], done[1]


_USES = [_Gateway.load, _Gateway.name, _Gateway.make_champion, _Gateway.roll_out]


@pytest.mark.parametrize("use", _USES)
async def test_what_is_being_deleted_is_not_used(
    use: Callable[[_Gateway], Awaitable[None]],
    gateways: tuple[_Gateway, _Gateway],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Delete first: whoever wants to use the version hears that it is gone, and nothing is left."""
    one, other = gateways
    pause = _Pause(monkeypatch, (registrations, "record_change"))
    deleted, used = await _interleave(pause, one.delete(), use(other))
    assert deleted is None
    assert isinstance(used, (VersionNotFound, VersionInUse)), repr(used)
    rows = await one.versions.read_all()
    assert [row.version for row in rows.versions] == [1]
    assert (list(rows.desired), list(rows.rollouts)) == ([], [])


@pytest.mark.parametrize("use", _USES)
async def test_what_is_being_used_is_not_deleted(
    use: Callable[[_Gateway], Awaitable[None]],
    gateways: tuple[_Gateway, _Gateway],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Use first: whoever deletes hears that the version is in use, and it is still there."""
    one, other = gateways
    places = [(module, "record_change") for module in (versions, registrations, rollouts)]
    pause = _Pause(monkeypatch, *places)
    used, deleted = await _interleave(pause, use(one), other.delete())
    assert used is None
    assert isinstance(deleted, VersionInUse), repr(deleted)
    assert {row.version for row in (await one.versions.read_all()).versions} == {1, 2}


async def test_the_same_bytes_become_one_version_whenever_they_come(
    gateways: tuple[_Gateway, _Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    One gateway records a version just between the two questions of another's claim: whether the
    bytes are registered, and whether somebody is at it.
    """
    one, other = gateways
    first = await one.claim()
    assert first.state == "claimed"
    pause = _Pause(monkeypatch, (registrations, "_pending"), before=True)
    claimed, recorded = await _interleave(pause, other.claim(), one.record(first.version))
    assert not isinstance(recorded, GatewayError), repr(recorded)
    assert (claimed.state, claimed.version) == ("pending", first.version)
    again = await other.claim()
    assert (again.state, again.version) == ("registered", first.version)
