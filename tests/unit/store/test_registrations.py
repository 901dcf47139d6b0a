"""Claims of version numbers and deletions, by two gateways on one database, on both kinds of it."""

import asyncio

import pytest

from gateway.errors import VersionInUse
from gateway.store.database import Database
from gateway.store.registrations import Claim, RegistrationStore
from gateway.store.rollout_tables import RolloutRow
from gateway.store.versions import NewVersion, VersionStore

Gateways = tuple[Database, Database]


async def _claim(database: Database, owner: str, source: str) -> Claim:
    return await RegistrationStore(database).claim(
        "m", source_digest=source, record_digest="", owner=owner, at_least=1
    )


def _version(number: int, source: str = "s") -> NewVersion:
    return NewVersion("m", number, "d", source, 1, {}, "", (), "test")


async def test_claims_of_one_name_at_once_get_numbers_of_their_own(two_gateways: Gateways) -> None:
    """Of other bytes, through both gateways, for a name that nobody has: 1, 2, 3, …"""
    claims = await asyncio.gather(
        *(_claim(two_gateways[n % 2], f"gateway-{n % 2}", f"bytes-{n}") for n in range(8))
    )
    assert {claim.state for claim in claims} == {"claimed"}
    assert sorted(claim.version for claim in claims) == list(range(1, 9))


async def test_the_same_bytes_are_claimed_once(two_gateways: Gateways) -> None:
    """The others are told who is at it; once it is recorded, which version they are."""
    one, other = two_gateways
    claims = await asyncio.gather(
        *(_claim(two_gateways[n % 2], f"gateway-{n % 2}", "bytes") for n in range(6))
    )
    assert [claim.state for claim in claims].count("claimed") == 1
    winner = next(claim for claim in claims if claim.state == "claimed")
    waiting = [claim for claim in claims if claim.state == "pending"]
    assert len(waiting) == 5
    assert {claim.version for claim in waiting} == {winner.version}
    assert len({claim.owner for claim in waiting}) == 1
    await VersionStore(one).add_version(_version(winner.version, "bytes"), actor="test")
    later = await _claim(other, "gateway-1", "bytes")
    assert (later.state, later.version) == ("registered", winner.version)


async def test_a_claim_that_is_given_up_frees_its_number_once(two_gateways: Gateways) -> None:
    """The last number that nobody saw is given again, by either gateway."""
    one, other = two_gateways
    assert (await _claim(one, "a", "first")).version == 1
    assert (await _claim(other, "b", "second")).version == 2
    await RegistrationStore(other).release("m", 2)
    await RegistrationStore(other).release("m", 2)
    assert (await _claim(one, "a", "third")).version == 2


async def test_an_open_rollout_holds_its_versions(two_gateways: Gateways) -> None:
    """Also where no alias and no load holds them; one that has ended holds nothing."""
    database = two_gateways[0]
    versions, registrations = VersionStore(database), RegistrationStore(database)
    for number in (1, 2, 3, 4):
        await versions.add_version(_version(number), actor="test", aliases=["champion"])

    async def delete(number: int) -> None:
        await registrations.delete_versions("m", [number], whole=False, owner="a", actor="test")

    row = RolloutRow(
        id="r1",
        model="m",
        live_model="m",
        champion=1,
        challenger=2,
        phase="Progressing",
        revision=1,
        state={},
        gate=None,
        loaded_challenger=True,
        created_by="test",
        created_at_s=1.0,
    )
    async with database.write() as session:
        session.add(row)
    for number in (1, 2):
        with pytest.raises(VersionInUse, match="Rollout r1 of m has not ended"):
            await delete(number)
    await delete(3)
    async with database.write() as session:
        ended = await session.get_one(RolloutRow, "r1")
        ended.live_model = None
    for number in (1, 2):
        await delete(number)
