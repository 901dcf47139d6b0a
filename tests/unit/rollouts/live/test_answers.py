"""Feedback on answers that the gateway remembers."""

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gateway.errors import AnswerNotFound, StoreUnavailable
from gateway.rollouts.live.answers import Answers
from gateway.rollouts.live.assignments import Assignments, RequestResult
from gateway.rollouts.live.mirror import Mirror
from gateway.rollouts.live.tally import Tally
from gateway.rollouts.state.plan import Plan, Stage
from gateway.rollouts.state.routing import Route, RoutingTable
from gateway.rollouts.state.traffic import Assignment, StepId, Traffic
from gateway.rollouts.state.transitions import begin
from gateway.store.database import Database, open_database
from gateway.store.feedback import CategoryOf, FeedbackStore
from gateway.store.rollout_evidence import EvidenceStore
from gateway.store.rollouts import RolloutStore
from gateway.store.versions import NewVersion, VersionStore

STEP = StepId("r", 0, 0)
SHADOW = Assignment(STEP, "m", champion=1, challenger=2, version=1, shadow=True, mirrored=True)
CANARY = replace(SHADOW, version=2, shadow=False, mirrored=False)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await open_database(f"sqlite:///{tmp_path}/gateway.db", answer_timeout_s=2.0)
    for version in (1, 2):
        new = NewVersion("m", version, "d", "d", 1, {}, "", (), "test")
        await VersionStore(database).add_version(new, actor="test")
    plan = Plan(stages=(Stage.of("canary"),))
    rollout, _ = begin(rollout_id="r", model="m", champion=1, challenger=2, plan=plan, now=1.0)
    await RolloutStore(database).create(
        rollout.to_json(), loaded_challenger=True, gate=None, actor="test"
    )
    yield database
    await database.close()


def _answers(database: Database, *, labelled: bool = False) -> tuple[Answers, Tally]:
    tally = Tally(EvidenceStore(database))
    traffic = Traffic(labelled=frozenset({"m"} if labelled else ()))
    feedback = FeedbackStore(database)
    return Answers(tally, feedback, window_s=60, traffic=lambda: traffic), tally


def _is(category: int) -> CategoryOf:
    return lambda _model, _version: category


async def _accuracy(database: Database) -> list[tuple[int, int, int]]:
    rows = await FeedbackStore(database).accuracy("m")
    return [(row.version, row.labelled, row.wrong) for row in rows]


async def test_feedback_that_could_not_be_stored_can_be_given_again(
    database: Database, tmp_path: Path
) -> None:
    """While the database is locked nothing is counted or forgotten; afterwards it counts once."""
    answers, _ = _answers(database)
    answers.remember("q", "m", 1, 7)
    with contextlib.closing(sqlite3.connect(tmp_path / "gateway.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable):
            await answers.judge("q", _is(7))
        other.rollback()
    for counted in (True, False):
        judged = await answers.judge("q", _is(7))
        assert (judged.right, judged.counted) == (True, counted)
    with pytest.raises(AnswerNotFound):
        await answers.judge("another", _is(7))
    assert await _accuracy(database) == [(1, 1, 0)]


@pytest.mark.parametrize("labelled", [False, True])
async def test_a_reused_request_id_counts_once(database: Database, labelled: bool) -> None:
    """However often an id is used, of a rollout or not, feedback on it counts one time."""
    answers, tally = _answers(database, labelled=labelled)
    for _ in range(3):
        answers.remember_assigned(CANARY, "q", 7)
        answers.remember("other", "m", 1, 7)
        await answers.judge("q", _is(3))
        await answers.judge("other", _is(7))
        await answers.flush()
    assert await _accuracy(database) == [(1, 1, 0), (2, 1, 1)]
    assert (tally.counts(STEP).challenger.labelled, tally.counts(STEP).challenger.wrong) == (1, 1)


async def test_answers_are_stored_only_where_somebody_gives_feedback(database: Database) -> None:
    """Before the first feedback answers stay in memory; after it those of its model are stored."""
    answers, tally = _answers(database)
    for number in range(3):
        answers.remember_assigned(CANARY, f"q{number}", 7)
    await answers.flush()
    feedback = FeedbackStore(database)
    assert await feedback.claim("q0", _is(7)) is None
    assert (await answers.judge("q1", _is(7))).counted
    answers.remember_assigned(CANARY, "later", 7)
    await answers.flush()
    assert await feedback.claim("later", _is(7)) is not None
    assert tally.counts(STEP).challenger.labelled == 1
    assert await feedback.models_with_feedback(within_s=60) == {"m"}


@pytest.mark.parametrize("challenger", [7, 3, None])
async def test_feedback_may_come_before_the_copy(
    database: Database, challenger: int | None
) -> None:
    """Feedback in shadow is found before the challenger has answered, and counts for the pair."""
    answers, tally = _answers(database)
    answers.begin_pair(SHADOW, "q", 7)
    assert (await answers.judge("q", _is(7))).counted
    assert tally.counts(STEP).labelled_pairs == 0
    answers.end_pair("q", challenger)
    seen = tally.counts(STEP).freeze()
    assert seen.pairs.labelled == (challenger is not None)
    assert seen.pairs.only_champion_right == (challenger == 3)
    assert seen.champion.labelled == 1
    assert not (await answers.judge("q", _is(7))).counted
    assert await _accuracy(database) == [(1, 1, 0)]


async def test_feedback_finds_what_the_champion_answered_instead(database: Database) -> None:
    """A challenger that failed was stood in for: feedback counts for the champion, not for it."""
    answers, tally = _answers(database)
    mirror = Mirror(
        tally, answers, workers=1, queue=1, queue_bytes=1, timeout_s=1, keep_images=False
    )
    assignments = Assignments(Traffic, tally, answers, mirror)
    assignments.observe(CANARY, RequestResult("q", b"", fallback=7))
    assignments.observe(CANARY, RequestResult("p", b"", shared=True))
    assert (await answers.judge("q", _is(7))).version == 1
    counts = tally.counts(STEP)
    assert (counts.challenger.errors, counts.challenger.labelled, counts.shared) == (2, 0, 1)
    assert await _accuracy(database) == [(1, 1, 0)]


async def test_callers_that_name_themselves_are_capped(database: Database) -> None:
    """One caller with most of the traffic takes the challenger to twice its weight, not further."""
    answers, tally = _answers(database)
    mirror = Mirror(
        tally, answers, workers=1, queue=1, queue_bytes=1, timeout_s=1, keep_images=False
    )
    table = RoutingTable({"m": Route("m", 1, 2, 10, salt="r")})
    assignments = Assignments(lambda: Traffic(table, {"m": STEP}), tally, answers, mirror)
    sides = {key: assignments.assign("m", 1, key=key) for key in map(str, range(100))}
    heavy = next(key for key, assignment in sides.items() if assignment and assignment.version == 2)
    for number in range(2000):
        key = heavy if number % 2 else None
        assignment = assignments.assign("m", 1, key=key)
        if assignment is not None:
            result = RequestResult(str(number), b"", None, np.array([1.0]), 0.01)
            assignments.observe(assignment, result)
    seen = tally.counts(STEP).freeze()
    answered = seen.champion_requests + seen.challenger_requests + seen.capped
    assert seen.capped > 0
    assert seen.of_callers_challenger / answered < 0.2
    assert seen.callers_challenger.requests == 1
