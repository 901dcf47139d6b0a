"""Windows of computing: like with like, or not at all."""

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.rollouts.live.compute import ComputeWatch, Readings
from gateway.rollouts.live.tally import Tally
from gateway.rollouts.state.plan import Plan, Stage
from gateway.rollouts.state.rollout import Rollout
from gateway.rollouts.state.traffic import StepId
from gateway.store.database import open_database
from gateway.store.rollout_evidence import EvidenceStore

BY_CPU, BY_CLOCK = frozenset({7}), frozenset[int]()


def rollout(strategy: str, steps: list[float] | None = None) -> Rollout:
    plan = Plan((Stage.of(strategy, steps),))
    return Rollout(
        "r", "m", champion=1, challenger=2, plan=plan, created_at_s=0, step_started_at_s=0
    )


def readings(*seconds: float, runs: int = 10, processes: frozenset[int] = BY_CPU) -> list[Readings]:
    """Make two readings: between them each version computed `runs` times, for so many seconds."""
    return [
        {
            ("t", "m", version): (count * runs, 5.0 + count * took_s, processes)
            for version, took_s in enumerate(seconds, start=1)
        }
        for count in (0, 1)
    ]


async def windows(
    of: Rollout, given: list[Readings], tmp_path: Path, *, busy: bool = True
) -> tuple[float, float]:
    """Look twice, a second apart; how many windows counted, and in how many it was slower."""
    database = await open_database(f"sqlite:///{tmp_path}/gateway.db")
    try:
        tally, now_s = Tally(EvidenceStore(database)), 0.0
        watch = ComputeWatch(tally, now=lambda: now_s)
        for reading in given:

            async def read(reading: Readings = reading) -> Readings:
                return reading

            now_s += 1.0
            await watch.look(of, read, busy=busy)
        compute = tally.counts(StepId("r", of.stage, of.step)).compute
        return compute.windows, compute.slower
    finally:
        await database.close()


@pytest.mark.parametrize(("challenger_s", "slower"), [(0.1, 0), (0.119, 0), (0.13, 1)])
@pytest.mark.parametrize("strategy", ["shadow", "canary"])
async def test_cpu_time_counts_on_a_full_machine(
    strategy: str, challenger_s: float, slower: int, tmp_path: Path
) -> None:
    """Means of ten runs, 10 ms each: slower is what lies above 20 % and above 2 ms."""
    given = readings(0.1, challenger_s)
    assert await windows(rollout(strategy), given, tmp_path) == (1, slower)


@pytest.mark.parametrize(
    ("strategy", "weight", "busy", "counted"),
    [
        ("shadow", 100, True, 0),
        ("shadow", 100, False, 0),
        ("canary", 10, True, 0),
        ("canary", 10, False, 1),
        ("canary", 50, True, 1),
    ],
)
async def test_a_time_by_the_clock_counts_where_both_compute_beside_each_other_alike(
    strategy: str, weight: float, *, busy: bool, counted: int, tmp_path: Path
) -> None:
    """On a full machine the version with few requests always computes beside the other one."""
    given = readings(0.1, 0.1, processes=BY_CLOCK)
    found = await windows(rollout(strategy, [weight]), given, tmp_path, busy=busy)
    assert found == (counted, 0)


async def test_a_replaced_process_ends_the_window(tmp_path: Path) -> None:
    """The time that another process used says nothing about the inferences since."""
    before, after = readings(0.1, 0.1)
    runs, seconds, _ = after["t", "m", 2]
    replaced = {**after, ("t", "m", 2): (runs, seconds, frozenset({8}))}
    again = {key: (2 * n, s + 0.1, p) for key, (n, s, p) in replaced.items()}
    assert await windows(rollout("shadow"), [before, replaced], tmp_path) == (0, 0)
    assert await windows(rollout("shadow"), [before, replaced, again], tmp_path) == (1, 0)


async def test_a_window_goes_on_until_both_have_computed_enough(tmp_path: Path) -> None:
    """Four inferences are too few; the next look adds more to the same window."""
    before, after = readings(0.1, 0.1, runs=4)
    more = {key: (2 * n, s + 0.1, p) for key, (n, s, p) in after.items()}
    assert await windows(rollout("shadow"), [before, after], tmp_path) == (0, 0)
    assert await windows(rollout("shadow"), [before, after, more], tmp_path) == (1, 0)


async def test_a_new_step_begins_a_new_window(tmp_path: Path) -> None:
    """What was computed under another weight is not counted for this one."""
    first = rollout("canary", [10, 50])
    database = await open_database(f"sqlite:///{tmp_path}/gateway.db")
    try:
        tally, now_s = Tally(EvidenceStore(database)), 0.0
        watch = ComputeWatch(tally, now=lambda: now_s)
        for of, reading in zip((first, replace(first, step=1)), readings(0.1, 0.1), strict=True):

            async def read(reading: Readings = reading) -> Readings:
                return reading

            now_s += 1.0
            await watch.look(of, read, busy=False)
        assert tally.counts(StepId("r", 0, 1)).compute.windows == 0
    finally:
        await database.close()
