"""Writing, rolling up and asking, on both databases."""

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import delete

from gateway.errors import StoreUnavailable
from gateway.metrics.merging import roll_up
from gateway.metrics.query import QueryResult, Question, ask
from gateway.metrics.rollup import Retention, Rollup
from gateway.metrics.writer import MetricsWriter
from gateway.store.database import Database, open_database
from gateway.store.metrics_tables import (
    LevelRow,
    MetricsWriterRow,
    RequestMetricsRow,
    VersionSampleRow,
)
from gateway.store.metrics_writers import Gap, MetricsWriterStore
from gateway.store.request_metrics import DAY_S, HOUR_S, MINUTE_S, Filters, RequestMetricsStore
from gateway.store.version_samples import VersionSample, VersionSampleStore
from gateway.telemetry.observation import Observation
from gateway.telemetry.request_metrics import Recorder
from testbed.postgres import find_binaries, running_postgres_server


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/gateway.db"
    else:
        url = request.getfixturevalue("postgres_url")
    database = await open_database(url)
    yield database
    async with database.write() as session:
        for table in (RequestMetricsRow, LevelRow, MetricsWriterRow, VersionSampleRow):
            await session.execute(delete(table))
    await database.close()


class _Gateway:
    """A recorder and its writer, at a time of the test's choosing."""

    def __init__(self, database: Database, name: str, *, max_cells: int = 10_000) -> None:
        self.now_s = 0.0
        self.recorder = Recorder(lambda m, v: (m, v), max_cells=max_cells, clock=lambda: self.now_s)
        self.store = RequestMetricsStore(database)
        self.writer = MetricsWriter(self.recorder, self.store, name=name, clock=lambda: self.now_s)

    def count(self, at_s: float, version: int, total_s: float, status: int = 200) -> None:
        self.now_s = at_s
        code = "" if status < 400 else "inference_failed"
        seen = Observation("run", "m", version, status, code, "07", 10, 5, total_s)
        self.recorder.record(seen)


_RETENTION = Retention(DAY_S, 2 * DAY_S, 400 * DAY_S)


def _rollup(database: Database, retention: Retention = _RETENTION) -> Rollup:
    stores = RequestMetricsStore(database), VersionSampleStore(database)
    return Rollup(*stores, MetricsWriterStore(database), retention)


def _requests(answer: QueryResult) -> int:
    return sum(row.total.requests for row in answer.rows)


async def test_gateways_add_up_and_flushing_again_does_no_harm(database: Database) -> None:
    """Two processes that count the same thing are both in the answer, once."""
    for name in ("a", "b"):
        gateway = _Gateway(database, name)
        for _ in range(3):
            gateway.count(60.0, 1, 0.01)
            await gateway.writer.flush()
        await gateway.writer.flush()
    answer = await ask(RequestMetricsStore(database), Question(0, 120, 60))
    (row,) = answer.rows
    assert (row.start_s, row.group) == (60, ("run", "m", 1, 200))
    assert (row.total.requests, row.total.bytes_in) == (6, 60)
    assert row.total.categories == {"07": 6}


async def test_filters_choose_rows(database: Database) -> None:
    """Model, version, endpoint, status and class of status each leave out the others."""
    gateway = _Gateway(database, "a")
    gateway.count(0, 1, 0.01)
    gateway.count(0, 2, 0.01, status=502)
    await gateway.writer.flush()
    wanted = {
        Filters(versions=(2,)): 1,
        Filters(statuses=(5,)): 1,
        Filters(statuses=(200, 5)): 2,
        Filters(models=("other",)): 0,
        Filters(endpoints=("run",)): 2,
    }
    for filters, count in wanted.items():
        answer = await ask(gateway.store, Question(0, 60, None, ("version",), filters))
        assert _requests(answer) == count


@pytest.mark.slow
async def test_rolling_up_and_deleting_change_no_answer(database: Database) -> None:
    """Counts and percentiles of whole days are the same from minutes, hours and days."""
    gateway = _Gateway(database, "a")
    draw = random.Random(5)
    for minute in range(0, 3 * 1440, 37):
        for _ in range(3):
            gateway.count(minute * 60.0, 1 + minute % 2, draw.lognormvariate(-4, 0.5))
    await gateway.writer.flush()
    question = Question(0, 3 * DAY_S, None, ("version",))
    before = await ask(gateway.store, question)
    rollup = _rollup(database, Retention(3 * HOUR_S, 2 * DAY_S, 400 * DAY_S))
    await rollup.run(5 * DAY_S)
    await rollup.run(5 * DAY_S)
    levels = await gateway.store.levels()
    assert levels[MINUTE_S].kept_from_s > 2 * DAY_S
    assert levels[HOUR_S].kept_from_s > DAY_S
    after = await ask(gateway.store, question)
    assert [(row.group, row.total.requests, row.total.bytes_in) for row in before.rows] == [
        (row.group, row.total.requests, row.total.bytes_in) for row in after.rows
    ]
    for one, other in zip(before.rows, after.rows, strict=True):
        for share in (0.5, 0.9, 0.99):
            wanted = one.total.latencies["total"].quantile_s(share)
            assert other.total.latencies["total"].quantile_s(share) == pytest.approx(wanted)
    fine = await ask(gateway.store, Question(0, 3 * DAY_S, 60, ()))
    assert fine.step_s >= HOUR_S
    assert _requests(fine) == _requests(before)


async def test_a_minute_that_comes_late_is_in_every_answer(database: Database) -> None:
    """A gateway that could not write for hours is counted in the hours that are rolled up."""
    one, late = _Gateway(database, "a"), _Gateway(database, "b")
    one.count(30, 1, 0.01)
    await one.writer.flush()
    late.count(40, 1, 0.01)
    rollup = _rollup(database)
    await rollup.run(4 * HOUR_S)
    await late.writer.flush()
    for step_s in (60, HOUR_S, None):
        assert _requests(await ask(one.store, Question(0, HOUR_S, step_s))) == 2


@pytest.mark.parametrize("rolled_to_s", [4 * HOUR_S, 3 * DAY_S], ids=["hour", "day"])
async def test_a_minute_that_was_partly_written_is_counted_once(
    database: Database, rolled_to_s: int
) -> None:
    """A minute that goes on after its first part was rolled up is neither doubled nor halved."""
    gateway, rollup = _Gateway(database, "a"), _rollup(database, Retention(9e6, 9e6, 9e6))
    gateway.count(10, 1, 0.01)
    await gateway.writer.flush()
    for counted in (2, 3):
        # The gateway cannot reach the database for hours; another one rolls up what is there.
        gateway.count(20, 1, 0.01)
        await rollup.run(rolled_to_s)
        await gateway.writer.flush()
        for step_s in (60, HOUR_S, DAY_S, None):
            answer = await ask(gateway.store, Question(0, DAY_S, step_s))
            assert _requests(answer) == counted


async def test_a_minute_that_comes_during_a_roll_up_is_in_it(database: Database) -> None:
    """What comes between the reading and the writing of a roll-up has it made again."""
    one, late = _Gateway(database, "a"), _Gateway(database, "b")
    one.count(30, 1, 0.01)
    await one.writer.flush()
    rows = await one.store.read(MINUTE_S, 0, HOUR_S, Filters())
    late.count(40, 1, 0.01)
    await late.writer.flush()
    assert not await one.store.complete(HOUR_S, roll_up(rows, HOUR_S), was_s=0, now_s=HOUR_S)
    await _rollup(database).run(4 * HOUR_S)
    assert _requests(await ask(one.store, Question(0, HOUR_S, HOUR_S))) == 2


async def test_what_comes_after_its_minutes_were_deleted_is_counted_as_lost(
    database: Database,
) -> None:
    """A minute whose neighbours are deleted cannot be added to anything: it is lost, and told."""
    gateway = _Gateway(database, "a")
    gateway.count(10, 1, 0.01)
    await gateway.writer.flush()
    gateway.count(20, 1, 0.01)
    gateway.count(20, 1, 0.01)
    await _rollup(database, Retention(3 * HOUR_S, 9e6, 9e6)).run(2 * DAY_S)
    await gateway.writer.flush()
    assert _requests(await ask(gateway.store, Question(0, DAY_S, None))) == 1
    assert (gateway.recorder.lost.rows, gateway.recorder.lost.requests) == (1, 2)
    await gateway.writer.flush()
    assert gateway.recorder.lost.requests == 2


@pytest.mark.postgres
async def test_a_database_that_goes_and_comes_back_has_everything() -> None:
    """PostgreSQL is stopped: what is held is stored afterwards; what is not is counted."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server on this machine (Debian: package postgresql)")
    with running_postgres_server(binaries) as server:
        database = await open_database(server.url)
        gateway = _Gateway(database, "a", max_cells=4)
        gateway.count(0, 1, 0.01)
        await gateway.writer.flush()
        gateway.count(10, 1, 0.01)
        server.stop()
        for minute in range(1, 7):
            gateway.count(minute * 60.0, 1, 0.01)
            with pytest.raises(StoreUnavailable):
                await gateway.writer.flush()
        server.start()
        await gateway.writer.flush()
        stored = _requests(await ask(gateway.store, Question(0, HOUR_S, None)))
        await database.close()
    # Of eight, the first was stored before; four rows were held, three given up, one request each.
    assert (stored, gateway.recorder.lost.requests) == (5, 3)


async def test_the_killed_and_the_silent_are_gaps(database: Database) -> None:
    """Missing is what a killed process had not stored, and a silent one; not the stopped."""
    writers = MetricsWriterStore(database)
    for name in ("killed", "silent", "stopped", "lives"):
        gateway = _Gateway(database, name)
        gateway.now_s = 900.0 if name == "lives" else 100.0
        await gateway.writer.flush()
    await writers.killed("killed", lost_to_s=104.5)
    await writers.stopped("stopped")
    found = await writers.gaps(0, 1000, silent_s=800)
    assert set(found) == {Gap(100.0, 104.5), Gap(100.0, None)}
    assert await writers.gaps(105, 1000, silent_s=0) == []
    assert await writers.gaps(0, 100, silent_s=0) == []
    await writers.forget(500)
    assert await writers.gaps(0, 1000, silent_s=800) == []


async def test_old_samples_become_hours(database: Database) -> None:
    """Samples of minutes are added up to one of the hour; what is larger is kept."""
    store = VersionSampleStore(database)
    samples = [
        VersionSample(at_s, "r", "m", 1, 0.2, 100 + at_s, None, 0, 5, 2, 0.5, 1.0, {"4": 1, "1": 1})
        for at_s in (0, 60)
    ]
    await store.write(samples, writer="a")
    await store.thin(minutes_before_s=HOUR_S, hours_before_s=0)
    (hour,) = await store.read(0, HOUR_S)
    assert (hour.inferences, hour.executions, hour.memory_bytes) == (10, 4, 160)
    assert hour.batch_sizes == {"4": 2, "1": 2}
    await store.thin(minutes_before_s=HOUR_S, hours_before_s=HOUR_S)
    assert await store.read(0, HOUR_S) == []
