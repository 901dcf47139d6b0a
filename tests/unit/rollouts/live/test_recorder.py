"""Feedback on answers that the gateway remembers."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from gateway.errors import AnswerNotFound, StoreUnavailable
from gateway.rollouts.live.recorder import Recorder
from gateway.store.database import open_database
from gateway.store.feedback import FeedbackStore
from gateway.store.rollouts import RolloutStore


async def test_feedback_that_could_not_be_stored_can_be_given_again(tmp_path: Path) -> None:
    """While the database is locked nothing is counted or forgotten; afterwards it counts once."""
    database = await open_database(f"sqlite:///{tmp_path}/gateway.db", answer_timeout_s=0.2)
    recorder = Recorder(RolloutStore(database), FeedbackStore(database))
    recorder.remember("q", "m", 1, 7)
    with contextlib.closing(sqlite3.connect(tmp_path / "gateway.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable):
            await recorder.judge("q", 7)
        other.rollback()
    judged = await recorder.judge("q", 7)
    assert (judged.right, judged.counted) == (True, True)
    with pytest.raises(AnswerNotFound):
        await recorder.judge("q", 7)
    counted = [(row.labelled, row.wrong) for row in await FeedbackStore(database).accuracy("m")]
    assert counted == [(1, 0)]
    await database.close()
