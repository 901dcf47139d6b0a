"""The mirror: bounded, never waiting, fair to both sides."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from gateway.errors import InferenceFailed
from gateway.rollouts.live.answers import Answers
from gateway.rollouts.live.assignments import Assignments, RequestResult
from gateway.rollouts.live.mirror import Ask, Copy, Mirror, Reply
from gateway.rollouts.live.tally import Tally
from gateway.rollouts.state.traffic import Assignment, StepId, Traffic
from gateway.rollouts.statistics.histogram import latency_bucket
from gateway.store.database import open_database
from gateway.store.feedback import FeedbackStore
from gateway.store.rollout_evidence import EvidenceStore
from tests.eventually import eventually

STEP = StepId("r", 0, 0)
ASSIGNMENT = Assignment(STEP, "m", champion=1, challenger=2, version=1, shadow=True, mirrored=True)


@pytest.fixture
async def tally(tmp_path: Path) -> AsyncIterator[Tally]:
    database = await open_database(f"sqlite:///{tmp_path}/gateway.db")
    made = Tally(EvidenceStore(database))
    ANSWERS[made] = Answers(made, FeedbackStore(database), window_s=60)
    yield made
    del ANSWERS[made]
    await database.close()


ANSWERS: dict[Tally, Answers] = {}


@dataclass
class Lent:
    """An input in lent memory, of which there may be too little to keep it."""

    size_bytes: int = 96
    scarce: bool = False
    holders: int = 0

    def keep(self) -> bool:
        self.holders += not self.scarce
        return not self.scarce

    def release(self) -> None:
        self.holders -= 1


def _copy(number: int = 0) -> Copy:
    scores = np.array([0.1, 0.9], np.float32)
    return Copy(ASSIGNMENT, f"request-{number}", b"image", Lent(), scores)


def _mirror(tally: Tally, *, queue: int = 4, queue_bytes: int = 1 << 20) -> Mirror:
    return Mirror(
        tally,
        ANSWERS[tally],
        workers=1,
        queue=queue,
        queue_bytes=queue_bytes,
        timeout_s=0.05,
        keep_images=False,
    )


async def _run(
    mirror: Mirror, tally: Tally, ask: Ask, *, requests: int, busy: bool = False
) -> None:
    mirror.start(ask, lambda: busy)
    await eventually(lambda: tally.counts(STEP).challenger.requests == requests, within_s=5)
    await mirror.close()


async def test_what_does_not_fit_is_dropped_and_counts_for_neither(tally: Tally) -> None:
    """A full queue drops copies, by number and by bytes; offering never waits."""
    by_number, by_bytes = _mirror(tally, queue=2), _mirror(tally, queue_bytes=250)
    for number in range(5):
        by_number.offer(_copy(number))
    assert tally.counts(STEP).dropped == 3
    for number in range(5):
        by_bytes.offer(_copy(number))
    assert tally.counts(STEP).dropped == 3 + 3
    assert tally.counts(STEP).champion.requests == 0


async def test_a_hang_is_an_error_of_the_challenger(tally: Tally) -> None:
    """A challenger that never answers is given up after the deadline and counted as failed."""
    mirror = _mirror(tally)
    for number in range(2):
        mirror.offer(_copy(number))

    async def hang(_copy: Copy, _version: int) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError

    await _run(mirror, tally, hang, requests=2)
    counts = tally.counts(STEP)
    assert (counts.challenger.errors, counts.champion.errors, counts.compared) == (2, 0, 0)


async def test_agreement_and_failure_are_told_apart(tally: Tally) -> None:
    """Equal answers agree, other answers disagree and are sampled, failures are compared never."""
    answers = [np.array([0.1, 0.9]), np.array([0.85, 0.15]), None]
    mirror = _mirror(tally)
    for number in range(3):
        mirror.offer(_copy(number))

    async def ask(_copy: Copy, version: int) -> Reply:
        if version == ASSIGNMENT.champion:  # once more, to compare times
            return Reply(np.array([0.1, 0.9]), 0.01)
        if (scores := answers.pop(0)) is None:
            raise InferenceFailed("no")
        return Reply(scores, 0.02)

    await _run(mirror, tally, ask, requests=3)
    seen = tally.counts(STEP).freeze()
    assert (seen.pairs.compared, seen.pairs.disagreed) == (2, 1)
    assert (seen.champion.requests, seen.challenger.requests, seen.challenger.errors) == (3, 3, 1)
    assert seen.pairs.distances.counts == {0: 1, 37: 1}


async def test_a_copy_does_without_the_tensor(tally: Tally) -> None:
    """What the champion was given need not be kept: the copy is sent all the same."""
    mirror, given = _mirror(tally), []
    assignments = Assignments(Traffic, tally, ANSWERS[tally], mirror)
    assignments.observe(
        ASSIGNMENT, RequestResult("request", b"image", None, np.array([0.1, 0.9]), 0.01)
    )

    async def ask(copy: Copy, version: int) -> Reply:
        if version == ASSIGNMENT.challenger:
            given.append((copy.encoded, copy.tensor, copy.size_bytes))
        return Reply(np.array([0.1, 0.9]), 0.04)

    await _run(mirror, tally, ask, requests=1)
    assert given == [(b"image", None, len(b"image"))]


async def test_times_are_compared_like_with_like(tally: Tally) -> None:
    """Both times of a pair come from one worker, in either order; the request's own is none."""
    mirror, asked = _mirror(tally, queue=200), []
    for number in range(100):
        mirror.offer(_copy(number))

    async def ask(copy: Copy, version: int) -> Reply:
        asked.append((copy.request_id, version))
        return Reply(np.array([0.1, 0.9]), 0.04 if version == ASSIGNMENT.challenger else 0.02)

    await _run(mirror, tally, ask, requests=100)
    counts = tally.counts(STEP)
    pairs = counts.challenger.latencies[latency_bucket(0.04)]
    assert 20 < pairs < 80
    assert counts.champion.latencies == {latency_bucket(0.02): pairs}
    orders = {
        tuple(version for request, version in asked if request == f"request-{number}")
        for number in range(100)
    }
    assert orders == {(2,), (1, 2), (2, 1)}


async def test_copies_yield_to_callers(tally: Tally) -> None:
    """On a full machine a worker rests most of the time, and no time is compared."""
    mirror, took_s = _mirror(tally, queue=200), 0.005
    for number in range(200):
        mirror.offer(_copy(number))

    async def ask(_copy: Copy, version: int) -> Reply:
        assert version == ASSIGNMENT.challenger
        await asyncio.sleep(took_s)
        return Reply(np.array([0.1, 0.9]), took_s)

    mirror.start(ask, lambda: True)
    await asyncio.sleep(1.0)
    await mirror.close()
    counts = tally.counts(STEP)
    assert 1 <= counts.challenger.requests <= 1.0 / (20 * took_s) + 1
    assert not counts.challenger.latencies


async def test_classes_are_compared_by_label(tally: Tally) -> None:
    """With other numbers for the same labels answers agree; a class that one lacks is apart."""
    assignment = replace(ASSIGNMENT, classes=(1, 0, -3))
    mirror, answers = _mirror(tally), [[0.9, 0.1, 0.0], [0.1, 0.9, 0.0], [0.1, 0.0, 0.9]]
    for number in range(3):
        mirror.offer(replace(_copy(number), assignment=assignment))

    async def ask(_copy: Copy, version: int) -> Reply:
        if version == ASSIGNMENT.champion:
            return Reply(np.array([0.1, 0.9]), 0.01)
        return Reply(np.array(answers.pop(0)), 0.01)

    await _run(mirror, tally, ask, requests=3)
    seen = tally.counts(STEP).freeze()
    assert (seen.pairs.compared, seen.pairs.disagreed, seen.apart) == (2, 1, 1)
    assert seen.pairs.distances.counts == {0: 1, 39: 1}


async def test_what_both_failed_is_shared(tally: Tally) -> None:
    """A request that neither version answered is an error of both, and marked."""
    mirror = _mirror(tally)
    mirror.offer(replace(_copy(), scores=None))

    async def ask(_copy: Copy, _version: int) -> Reply:
        raise InferenceFailed("no")

    await _run(mirror, tally, ask, requests=1)
    counts = tally.counts(STEP)
    assert (counts.champion.errors, counts.challenger.errors, counts.shared) == (1, 1, 1)


async def test_a_kept_tensor_is_let_go_once(tally: Tally) -> None:
    """A waiting copy holds its tensor until it was sent; one that is dropped never holds it."""
    mirror, lent = _mirror(tally, queue=1), [Lent(), Lent()]
    for each in lent:
        mirror.offer(replace(_copy(), tensor=each))
    assert [each.holders for each in lent] == [1, 0]
    held = []

    async def ask(copy: Copy, _version: int) -> Reply:
        assert isinstance(copy.tensor, Lent)
        held.append(copy.tensor.holders)
        return Reply(np.array([0.1, 0.9]), 0.01)

    await _run(mirror, tally, ask, requests=1)
    assert (set(held), lent[0].holders) == ({1}, 0)


async def test_scarce_memory_is_not_kept(tally: Tally) -> None:
    """Where memory is scarce the copy goes without its tensor instead of being dropped."""
    mirror, given = _mirror(tally), []
    mirror.offer(replace(_copy(), tensor=Lent(scarce=True)))

    async def ask(copy: Copy, version: int) -> Reply:
        if version == ASSIGNMENT.challenger:
            given.append(copy.tensor)
        return Reply(np.array([0.1, 0.9]), 0.01)

    await _run(mirror, tally, ask, requests=1)
    assert given == [None]
