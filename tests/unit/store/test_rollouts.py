"""Rows of rollouts on both databases: one writer wins, the alias moves whole, leases run out."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import RolloutInProgress
from gateway.rollouts.state.plan import Plan, Stage
from gateway.rollouts.state.rollout import Rollout
from gateway.rollouts.state.transitions import begin, promote, promoted, refused, roll_back
from gateway.store.database import Database, open_database
from gateway.store.feedback import CategoryOf, FeedbackStore, StoredAnswer
from gateway.store.leases import LeaseStore
from gateway.store.rollout_evidence import EvidenceStore, add_verdict
from gateway.store.rollout_tables import LeaseRow
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


def _is(category: int) -> CategoryOf:
    return lambda _model, _version: category


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
    """Nobody else gets the lease until it has run out, was given back, or can be none of today."""
    leases = LeaseStore(database)

    async def runs_until(seconds_from_now: float) -> None:
        async with database.write() as session:
            row = await session.get(LeaseRow, "job")
            assert row is not None
            row.until_s = time.time() + seconds_from_now

    assert await leases.hold("job", "a", for_s=5)
    assert not await leases.hold("job", "b", for_s=5)
    assert await leases.hold("job", "a", for_s=5)
    await runs_until(-1)
    assert await leases.hold("job", "b", for_s=5)
    assert not await leases.hold("job", "a", for_s=5)
    await runs_until(3600)  # it was taken before the clock was set back
    assert await leases.hold("job", "a", for_s=5)
    await leases.release("job", "b")
    assert not await leases.hold("job", "b", for_s=5)
    await leases.release("job", "a")
    assert await leases.hold("job", "b", for_s=5)


async def test_the_number_of_a_lease_grows_when_it_changes_hands(database: Database) -> None:
    """Extended or taken again by the same holder it stays; nobody else can have had it between."""
    leases = LeaseStore(database)
    first = await leases.hold("job", "a", for_s=5)
    assert await leases.hold("job", "a", for_s=5) == first
    await leases.release("job", "a")
    assert await leases.hold("job", "a", for_s=5) == first
    await leases.release("job", "a")
    assert await leases.hold("job", "b", for_s=5) == first + 1
    assert await leases.hold("job", "a", for_s=5) == 0
    await leases.release("job", "b")
    assert await leases.hold("job", "a", for_s=5) == first + 2


async def test_counts_add_up_and_feedback_counts_once(database: Database) -> None:
    """Each gateway replaces its own counts only; an answer is claimed for feedback once."""
    store, feedback = EvidenceStore(database), FeedbackStore(database)
    await _begin(RolloutStore(database))
    document: dict[str, Any] = {"n": 1}
    for gateway, count in (("a", 1), ("a", 2), ("b", 5)):
        counts = {("r1", 0, 0): (document | {"n": count}, count)}
        await store.put_observations(gateway, counts, [])
    found = await store.observations("r1")
    assert sorted((each.counts["n"], each.dropped) for each in found) == [(2, 2), (5, 5)]
    answered = StoredAnswer("q", "r1", 0, 0, "m", 2, 7, None, 1e12)
    await feedback.put_answers([answered])
    await feedback.put_answers([answered])
    first = await feedback.claim("q", _is(3))
    again = await feedback.claim("q", _is(3))
    assert first is not None
    assert again is not None
    assert (first[0].by_challenger, first[1], again[1]) == (True, True, False)
    assert await feedback.claim("unknown", _is(3)) is None
    for number, wrong in enumerate((True, False, False)):
        assert await feedback.add(f"a{number}", "m", 2, wrong=wrong)
        assert not await feedback.add(f"a{number}", "m", 2, wrong=wrong)
    assert [(row.labelled, row.wrong) for row in await feedback.accuracy("m")] == [(4, 2)]


async def test_feedback_that_comes_together_is_judged_apart(database: Database) -> None:
    """Of a crowd of claims each gets its own answer: twice the same, an unknown one, and others."""
    feedback = FeedbackStore(database)
    await _begin(RolloutStore(database))
    numbers = range(40)
    await feedback.put_answers(
        [StoredAnswer(f"q{n}", "r1", 0, 0, "m", 1 + n % 2, 7, None, 1e12) for n in numbers]
    )
    told = [(f"q{n}", 7 if n < 10 else 3) for n in numbers] + [("q0", 7), ("unknown", 7)]
    claims = await asyncio.gather(*(feedback.claim(name, _is(true)) for name, true in told))
    assert claims[-1] is None
    answers = [claim for claim in claims if claim is not None]
    assert [answered.request_id for answered, _ in answers] == [each[0] for each in told[:-1]]
    assert [first for _, first in answers] == [True] * 40 + [False]
    assert [answered.by_challenger for answered, _ in answers][:2] == [False, True]
    counted = [(row.version, row.labelled, row.wrong) for row in await feedback.accuracy("m")]
    assert counted == [(1, 20, 15), (2, 20, 15)]


async def test_answers_are_kept_within_a_bound(database: Database) -> None:
    """What is too old is forgotten, and of the rest all but the newest."""
    feedback = FeedbackStore(database)
    await _begin(RolloutStore(database))
    now_s = time.time()
    ages_s = {f"q{age}": age for age in (1, 2, 3, 4, 500)}
    await feedback.put_answers(
        [
            StoredAnswer(name, "r1", 0, 0, "m", 1, 7, None, now_s - age)
            for name, age in ages_s.items()
        ]
    )
    await feedback.forget(older_than_s=100, keep=10)
    assert await feedback.claim("q500", _is(7)) is None
    await feedback.forget(older_than_s=100, keep=2)
    left = [name for name in ages_s if await feedback.claim(name, _is(7)) is not None]
    assert left == ["q1", "q2"]


async def test_verdicts_are_thinned_with_age_and_paged(database: Database) -> None:
    """The newest 256 stay, fewer of older ones, every failed one; pages follow each other."""
    store, evidence = RolloutStore(database), EvidenceStore(database)
    await _begin(store)
    async with database.write() as session:
        for number in range(1, 2049):
            outcome = "Failed" if number == 77 else "Inconclusive"
            await add_verdict(session, "r1", {"number": number, "at_s": 1.0, "outcome": outcome})
    found = [each["number"] for each in await evidence.verdicts("r1", limit=10_000)]
    assert found[-256:] == list(range(1793, 2049))
    assert 77 in found
    assert 256 < len(found) < 800
    paged: list[int] = []
    before = None
    while page := await evidence.verdicts("r1", limit=100, before=before):
        before = page[0]["number"]
        paged = [each["number"] for each in page] + paged
    assert paged == found


async def test_rollouts_are_paged(database: Database) -> None:
    """Pages of the history follow each other without a gap or a repetition."""
    store = RolloutStore(database)
    for number in range(5):
        rollout = await _begin(store, f"r{number}")
        failed, _ = roll_back(rollout, 2.0, "bad")
        assert await store.save(_change(rollout, failed))
    found, before = [], None
    while page := await store.history(limit=2, before=before):
        found += [row.id for row in page]
        before = page[-1].id
    assert found == ["r4", "r3", "r2", "r1", "r0"]


async def test_what_cannot_be_read_is_ended(database: Database) -> None:
    """A rollout with an unreadable state is ended: its model is free, and says why."""
    store = RolloutStore(database)
    await _begin(store)
    await store.end_unreadable("r1", reason="odd", actor="test")
    row = await store.read("r1")
    assert row is not None
    assert (row.phase, row.live_model, row.state["reason"]) == ("Failed", None, "odd")
    assert await _aliases(database) == {"champion": 1}
    await _begin(store, "r2")


async def test_a_sample_gives_its_image_back_only_if_it_was_kept(database: Database) -> None:
    """The list says of each sample whether its image is kept; another rollout's is not found."""
    store = EvidenceStore(database)
    await _begin(RolloutStore(database))
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
