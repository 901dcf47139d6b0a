"""The mirror: bounded, never waiting, fair to both sides."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from gateway.errors import InferenceFailed
from gateway.rollouts.live.mirror import Ask, Copy, Mirror, Reply
from gateway.rollouts.live.recorder import Recorder
from gateway.rollouts.live.trials import Outcome, Trials
from gateway.rollouts.state.traffic import StepId, Traffic, Trial
from gateway.rollouts.statistics.observations import latency_bucket
from gateway.store.database import open_database
from gateway.store.feedback import FeedbackStore
from gateway.store.rollouts import RolloutStore
from tests.eventually import eventually

STEP = StepId("r", 0, 0)
TRIAL = Trial(STEP, "m", champion=1, challenger=2, version=1, shadow=True, mirrored=True)


@pytest.fixture
async def recorder(tmp_path: Path) -> AsyncIterator[Recorder]:
    database = await open_database(f"sqlite:///{tmp_path}/gateway.db")
    yield Recorder(RolloutStore(database), FeedbackStore(database))
    await database.close()


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
    return Copy(TRIAL, f"request-{number}", b"image", Lent(), scores, 0.01)


def _mirror(recorder: Recorder, *, queue: int = 4, queue_bytes: int = 1 << 20) -> Mirror:
    return Mirror(
        recorder,
        workers=1,
        queue=queue,
        queue_bytes=queue_bytes,
        timeout_s=0.05,
        keep_images=False,
    )


async def _run(mirror: Mirror, recorder: Recorder, ask: Ask, *, requests: int) -> None:
    mirror.start(ask)
    await eventually(lambda: recorder.counts(STEP).challenger.requests == requests, within_s=5)
    await mirror.close()


async def test_what_does_not_fit_is_dropped_and_counts_for_neither(recorder: Recorder) -> None:
    """A full queue drops copies, by number and by bytes; offering never waits."""
    by_number, by_bytes = _mirror(recorder, queue=2), _mirror(recorder, queue_bytes=250)
    for number in range(5):
        by_number.offer(_copy(number))
    assert recorder.counts(STEP).dropped == 3
    for number in range(5):
        by_bytes.offer(_copy(number))
    assert recorder.counts(STEP).dropped == 3 + 3
    assert recorder.counts(STEP).champion.requests == 0


async def test_a_hang_is_an_error_of_the_challenger(recorder: Recorder) -> None:
    """A challenger that never answers is given up after the deadline and counted as failed."""
    mirror = _mirror(recorder)
    for number in range(2):
        mirror.offer(_copy(number))

    async def hang(_copy: Copy) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError

    await _run(mirror, recorder, hang, requests=2)
    counts = recorder.counts(STEP)
    assert (counts.challenger.errors, counts.champion.errors, counts.compared) == (2, 0, 0)


async def test_agreement_and_failure_are_told_apart(recorder: Recorder) -> None:
    """Equal answers agree, other answers disagree and are sampled, failures are compared never."""
    answers = [np.array([0.1, 0.9]), np.array([0.85, 0.15]), None]
    mirror = _mirror(recorder)
    for number in range(3):
        mirror.offer(_copy(number))

    async def ask(_copy: Copy) -> Reply:
        if (scores := answers.pop(0)) is None:
            raise InferenceFailed("no")
        return Reply(scores, 0.02)

    await _run(mirror, recorder, ask, requests=3)
    seen = recorder.counts(STEP).freeze()
    assert (seen.pairs.compared, seen.pairs.disagreed) == (2, 1)
    assert (seen.champion.requests, seen.challenger.requests, seen.challenger.errors) == (3, 3, 1)
    assert seen.pairs.distances.counts == {0: 1, 37: 1}


async def test_a_copy_does_without_the_tensor(recorder: Recorder) -> None:
    """What the champion was given need not be kept: the copy is sent, and timed by its answer."""
    mirror, given = _mirror(recorder), []
    trials = Trials(Traffic, recorder, mirror)
    trials.observe(TRIAL, Outcome("request", b"image", None, np.array([0.1, 0.9]), 0.01))

    async def ask(copy: Copy) -> Reply:
        given.append((copy.encoded, copy.tensor, copy.size_bytes))
        return Reply(np.array([0.1, 0.9]), 0.04)

    await _run(mirror, recorder, ask, requests=1)
    assert given == [(b"image", None, len(b"image"))]
    assert recorder.counts(STEP).challenger.latencies == {latency_bucket(0.04): 1}


async def test_a_kept_tensor_is_let_go_once(recorder: Recorder) -> None:
    """A waiting copy holds its tensor until it was sent; one that is dropped never holds it."""
    mirror, lent = _mirror(recorder, queue=1), [Lent(), Lent()]
    for each in lent:
        mirror.offer(replace(_copy(), tensor=each))
    assert [each.holders for each in lent] == [1, 0]
    held = []

    async def ask(copy: Copy) -> Reply:
        assert isinstance(copy.tensor, Lent)
        held.append(copy.tensor.holders)
        return Reply(np.array([0.1, 0.9]), 0.01)

    await _run(mirror, recorder, ask, requests=1)
    assert (held, lent[0].holders) == ([1], 0)


async def test_scarce_memory_is_not_kept(recorder: Recorder) -> None:
    """Where memory is scarce the copy goes without its tensor instead of being dropped."""
    mirror, given = _mirror(recorder), []
    mirror.offer(replace(_copy(), tensor=Lent(scarce=True)))

    async def ask(copy: Copy) -> Reply:
        given.append(copy.tensor)
        return Reply(np.array([0.1, 0.9]), 0.01)

    await _run(mirror, recorder, ask, requests=1)
    assert given == [None]
