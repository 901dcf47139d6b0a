"""Rows of rollouts on both databases: one writer wins, the alias moves whole, leases run out."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import RolloutInProgress
from gateway.rollouts.state.plan import Plan, Stage
from gateway.rollouts.state.rollout import Rollout, begin, promote, promoted, refused, roll_back
from gateway.store.database import Database, open_database
from gateway.store.feedback import Answered, FeedbackStore
from gateway.store.rollouts import Change, RolloutStore
from gateway.store.versions import NewVersion, VersionStore
from tests.postgres import empty


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/gateway.db"
    else:
        url = request.getfixturevalue("postgres_url")
    database = await open_database(url)
    store = VersionStore(database)
    for version in (1, 2, 3):
        await store.add_version(
            NewVersion("m", version, "d", "d", 1, {}, "", (), "test"), actor="test"
        )
    yield database
    if request.param == "postgresql":
        await empty(database)
    await database.close()


async def _begin(store: RolloutStore, rollout_id: str = "r1") -> Rollout:
    plan = Plan(stages=(Stage.of("canary"),))
    rollout, _ = begin(
        rollout_id=rollout_id, model="m", champion=1, challenger=2, plan=plan, now=1.0
    )
    await store.create(rollout.to_json(), loaded_challenger=True, gate=None, actor="test")
    return rollout


def _change(before: Rollout, after: Rollout, action: str = "x") -> Change:
    return Change(before.id, before.revision, after.to_json(), "test", action)


async def _aliases(database: Database) -> dict[str, int]:
    rows = await VersionStore(database).read_all()
    return {alias.alias: alias.version for alias in rows.aliases}


async def test_of_two_writers_one_wins(database: Database) -> None:
    """A change made from an old revision changes nothing."""
    store = RolloutStore(database)
    rollout = await _begin(store)
    winner, _ = promote(rollout, "first")
    loser, _ = roll_back(rollout, 2.0, "second")
    assert await store.save(_change(rollout, winner))
    assert not await store.save(_change(rollout, loser))
    row = await store.read("r1")
    assert row is not None
    assert row.phase == "Promoting"


async def test_a_model_has_one_live_rollout(database: Database) -> None:
    """A second rollout is refused until the first has ended; then the alias challenger is free."""
    store = RolloutStore(database)
    rollout = await _begin(store)
    assert await _aliases(database) == {"champion": 1, "challenger": 2}
    with pytest.raises(RolloutInProgress):
        await _begin(store, "r2")
    failed, _ = roll_back(rollout, 2.0, "bad")
    assert await store.save(_change(rollout, failed))
    assert await _aliases(database) == {"champion": 1}
    await _begin(store, "r2")
    # The version that the first one loaded is now the second's to unload.
    assert await store.to_unload() == []


@pytest.mark.parametrize("moved_by_hand", [False, True])
async def test_the_alias_moves_with_the_end(database: Database, moved_by_hand: bool) -> None:
    """Promotion moves the alias and ends the rollout in one transaction, or does neither."""
    store = RolloutStore(database)
    rollout = await _begin(store)
    promoting, _ = promote(rollout, "go")
    assert await store.save(_change(rollout, promoting))
    if moved_by_hand:
        await VersionStore(database).replace_champion("m", 3, swap_desired=False, actor="test")
    done, _ = promoted(promoting, 3.0)
    no, _ = refused(promoting, 3.0, "moved")
    changes = (_change(promoting, done), _change(promoting, no))
    assert await store.move_champion(*changes) is (not moved_by_hand)
    assert await store.move_champion(*changes) is None
    assert await _aliases(database) == {"champion": 3 if moved_by_hand else 2}
    row = await store.read("r1")
    assert row is not None
    assert row.phase == ("Failed" if moved_by_hand else "Succeeded")


async def test_a_lease_has_one_holder_and_runs_out(database: Database) -> None:
    """Nobody else gets the lease until it has run out or was given back."""
    store = RolloutStore(database)

    async def hold(owner: str, now_s: float) -> bool:
        return await store.hold_lease("job", owner, now_s=now_s, for_s=5)

    assert await hold("a", 0)
    assert not await hold("b", 4)
    assert await hold("a", 4)
    assert not await hold("b", 8)
    assert await hold("b", 10)
    assert not await hold("a", 11)
    await store.release_lease("job", "b")
    assert await hold("a", 11)


async def test_counts_add_up_and_feedback_counts_once(database: Database) -> None:
    """Each gateway replaces its own counts only; an answer is claimed for feedback once."""
    store, feedback = RolloutStore(database), FeedbackStore(database)
    await _begin(store)
    document: dict[str, Any] = {"n": 1}
    for gateway, count in (("a", 1), ("a", 2), ("b", 5)):
        counts = {("r1", 0, 0): (document | {"n": count}, count)}
        await store.put_observations(gateway, counts, [])
    found = await store.observations("r1", 0, 0)
    assert sorted(counts["n"] for counts, _ in found) == [2, 5]
    answered = Answered("q", "r1", 0, 0, "m", 2, 7, None, 1e12)
    await feedback.put_answers([answered])
    await feedback.put_answers([answered])
    first = await feedback.claim("q", 3)
    again = await feedback.claim("q", 3)
    assert first is not None
    assert again is not None
    assert (first[0].by_challenger, first[1], again[1]) == (True, True, False)
    assert await feedback.claim("unknown", 3) is None
    for wrong in (True, False, False):
        await feedback.add("m", 2, wrong=wrong)
    assert [(row.labelled, row.wrong) for row in await feedback.accuracy("m")] == [(4, 2)]


async def test_feedback_that_comes_together_is_judged_apart(database: Database) -> None:
    """Of a crowd of claims each gets its own answer: twice the same, an unknown one, and others."""
    feedback = FeedbackStore(database)
    await _begin(RolloutStore(database))
    numbers = range(40)
    await feedback.put_answers(
        [Answered(f"q{n}", "r1", 0, 0, "m", 1 + n % 2, 7, None, 1e12) for n in numbers]
    )
    told = [(f"q{n}", 7 if n < 10 else 3) for n in numbers] + [("q0", 7), ("unknown", 7)]
    claims = await asyncio.gather(*(feedback.claim(*each) for each in told))
    assert claims[-1] is None
    answers = [claim for claim in claims if claim is not None]
    assert [answered.request_id for answered, _ in answers] == [each[0] for each in told[:-1]]
    assert [first for _, first in answers] == [True] * 40 + [False]
    assert [answered.by_challenger for answered, _ in answers][:2] == [False, True]
    counted = [(row.version, row.labelled, row.wrong) for row in await feedback.accuracy("m")]
    assert counted == [(1, 20, 15), (2, 20, 15)]


async def test_a_sample_gives_its_image_back_only_if_it_was_kept(database: Database) -> None:
    """The list says of each sample whether its image is kept; another rollout's is not found."""
    store = RolloutStore(database)
    await _begin(store)
    for number, image in enumerate((None, b"png")):
        sample = {
            "rollout": "r1",
            "request_id": f"q{number}",
            "at_s": 1.0,
            "image_digest": f"sha256:{number}",
            "champion": {"category": "01"},
            "challenger": {"category": "02"},
            "image": image,
        }
        await store.put_observations("a", {}, [sample])
    found = await store.samples("r1", limit=10)
    assert [(s.image_digest, s.image_kept) for s in found] == [
        ("sha256:1", True),
        ("sha256:0", False),
    ]
    assert await store.sample_image("r1", "sha256:1") == b"png"
    assert await store.sample_image("r1", "sha256:0") is None
    assert await store.sample_image("r2", "sha256:1") is None
