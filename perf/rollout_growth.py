"""
How much a week of rollouts at 900 requests a second adds to the database.

    python -m perf.rollout_growth [--turnovers 2] [--feedback 0.05]

A rollout is checked every ten seconds for a week; every check is stored, and the counts. Of the
544 million answers of that week the newest 500,000 wait for feedback (`FEEDBACK_ANSWERS`), which is
ten minutes of them: they are stored and forgotten as the gateway does it, every minute, so many
times over that the file no longer grows. What the file holds is told after each turnover, and once
as many requests have had feedback as are remembered.
"""

import argparse
import asyncio
import itertools
import json
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from gateway.rollouts.control.judging import Observed, judge
from gateway.rollouts.live.counting import StepCounts
from gateway.rollouts.state.plan import Plan, Stage
from gateway.rollouts.state.rollout import Rollout
from gateway.settings import Settings
from gateway.store.database import Database, open_database
from gateway.store.feedback import Answered, FeedbackStore
from gateway.store.rollout_evidence import EvidenceStore, add_verdict
from gateway.store.rollout_tables import JudgedRow, RolloutRow

_RATE_PER_S = 900
_WEEK_S, _CHECK_EVERY_S, _FORGET_EVERY_S = 7 * 86_400, 10, 60
_AT_ONCE = 500
_RESULTS = Path("perf/results/rollout_growth.json")


async def _measure(folder: Path, turnovers: int, feedback: float) -> dict[str, Any]:
    file = folder / "gateway.db"
    database = await open_database(f"sqlite:///{file}")
    try:
        sizes = {"empty": _size_mb(file)}
        rollout = await _begin(database)
        await _checks(database, rollout)
        sizes["a week of checks, no feedback"] = _size_mb(file)
        store, kept = FeedbackStore(database), Settings().feedback_answers
        answers = itertools.count()
        for turnover in range(turnovers):
            for _ in range(0, kept, _RATE_PER_S * _FORGET_EVERY_S):
                await _a_minute_of_answers(store, answers, feedback, kept)
            sizes[f"and {(turnover + 1) * kept:,} answers"] = _size_mb(file)
        await _judged(database, kept)
        sizes[f"and feedback on {kept:,} of them"] = _size_mb(file)
        return {"megabytes": sizes, "answers_kept": kept}
    finally:
        await database.close()


async def _begin(database: Database) -> Rollout:
    plan = Plan((Stage.of("shadow"), Stage.of("canary")))
    rollout = Rollout("growth", "m", 1, 2, plan, created_at_s=0.0, step_started_at_s=0.0)
    async with database.write() as session:
        session.add(
            RolloutRow(
                id=rollout.id,
                model="m",
                live_model="m",
                champion=1,
                challenger=2,
                phase=rollout.phase,
                revision=0,
                state=rollout.to_json(),
                loaded_challenger=True,
                created_by="perf",
                created_at_s=0.0,
            )
        )
    return rollout


async def _checks(database: Database, rollout: Rollout) -> None:
    """Store a week of checks, and the counts of five steps."""
    counts, chance = StepCounts(), np.random.default_rng(1)
    for latency_s in chance.lognormal(-4, 0.5, 20_000):
        counts.champion.answered(float(latency_s))
        counts.challenger.answered(float(latency_s))
        counts.pair(agree=True, distance=float(chance.random()))
    for number in range(3_000):
        category = number % 1_000
        counts.judged_pair(category, champion_right=True, challenger_right=number % 500 > 0)
    observed = counts.freeze()
    verdict = judge(rollout, Observed(observed, (), 0), time.time(), elapsed_s=10).to_json()
    checks = _WEEK_S // _CHECK_EVERY_S
    for first in range(1, checks + 1, _AT_ONCE):
        async with database.write() as session:
            for number in range(first, min(first + _AT_ONCE, checks + 1)):
                await add_verdict(session, rollout.id, {**verdict, "number": number})
    evidence = EvidenceStore(database)
    for _ in range(100):
        for step in range(5):
            at = {(rollout.id, step > 0, max(0, step - 1)): (observed.to_json(), 0)}
            await evidence.put_observations("gateway", at, [])


async def _a_minute_of_answers(
    store: FeedbackStore, numbers: "itertools.count[int]", feedback: float, kept: int
) -> None:
    now_s, ids = time.time(), []
    answers = []
    for place in range(_RATE_PER_S * _FORGET_EVERY_S):
        ids.append(f"{next(numbers):032x}")
        answers.append(
            Answered(
                request_id=ids[-1],
                rollout="growth",
                stage=0,
                step=0,
                model="m",
                version=1,
                category=7,
                challenger_category=7,
                at_s=now_s + place / _RATE_PER_S / 1_000,
            )
        )
    await store.put_answers(answers)
    told = ids[: round(feedback * len(ids))]
    for first in range(0, len(told), _AT_ONCE):
        claims = (store.claim(each, lambda *_: 7) for each in told[first : first + _AT_ONCE])
        await asyncio.gather(*claims)
    await store.forget(older_than_s=Settings().feedback_window_s, keep=kept)


async def _judged(database: Database, kept: int) -> None:
    """Note feedback on as many requests as are kept, as if it had come over days."""
    for first in range(0, kept, 10_000):
        async with database.write() as session:
            session.add_all(
                JudgedRow(request_id=f"judged-{number:025x}", at_s=number)
                for number in range(first, first + 10_000)
            )


def _size_mb(file: Path) -> float:
    """The file and its journal."""
    return round(sum(each.stat().st_size for each in file.parent.glob(f"{file.name}*")) / 1e6, 1)


def main() -> None:
    """Measure, and write the figures down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--turnovers", type=int, default=2, help="Of all answers that are kept.")
    parser.add_argument("--feedback", type=float, default=0.05, help="Share of the answers.")
    parser.add_argument("--output", type=Path, default=_RESULTS, help="Where the numbers go.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measured = asyncio.run(_measure(Path(folder), options.turnovers, options.feedback))
    at = datetime.now(UTC).isoformat(timespec="seconds")
    measured = {"at": at, "feedback": options.feedback, **measured}
    options.output.write_text(json.dumps(measured, indent=2) + "\n")
    print(json.dumps(measured, indent=2))


if __name__ == "__main__":
    main()
