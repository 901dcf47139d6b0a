"""The store on both databases: the same rules on SQLite and on a real PostgreSQL."""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from gateway.errors import StoreUnavailable, VersionConflict
from gateway.store.audit import ORIGIN, AuditStore, Origin
from gateway.store.database import Database, open_database
from gateway.store.tables import Base
from gateway.store.versions import NewVersion, VersionStore
from testbed.postgres import find_binaries, running_postgres_server
from tests.postgres import empty


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/gateway.db"
    else:
        url = request.getfixturevalue("postgres_url")
    database = await open_database(url)
    yield database
    if request.param == "postgresql":
        await empty(database)
    await database.close()


@pytest.fixture
def store(database: Database) -> VersionStore:
    return VersionStore(database)


def _version(model: str, version: int = 1) -> NewVersion:
    return NewVersion(
        model=model,
        version=version,
        digest="sha256:aa",
        source_digest="sha256:aa",
        size_bytes=3_000_000_000,
        signature={"inputs": []},
        config="name: 'm'",
        changes=(),
        source="test",
    )


async def test_migrations_and_tables_agree(database: Database) -> None:
    """The migrated schema is just what the mapped tables say."""

    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, Base.metadata))

    async with database.read() as session:
        connection = await session.connection()
        assert await connection.run_sync(differences) == []


async def test_opening_twice_at_once_migrates_once(tmp_path: Path) -> None:
    """Two gateways that start on one file both find the newest schema."""
    url = f"sqlite:///{tmp_path}/gateway.db"
    first, second = await asyncio.gather(open_database(url), open_database(url))
    assert await VersionStore(first).generation() == await VersionStore(second).generation()
    await first.close()
    await second.close()


async def test_the_first_write_waits_for_another_writer(tmp_path: Path) -> None:
    """Of a database that was just made, too: it does not fail because the file is locked."""
    database = await open_database(f"sqlite:///{tmp_path}/gateway.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "gateway.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        writing = asyncio.create_task(VersionStore(database).add_version(_version("m"), actor="t"))
        assert not (await asyncio.wait([writing], timeout=0.2))[0], "it did not wait"
        other.rollback()
        await writing
    await database.close()


async def test_a_migration_that_fails_leaves_the_schema_as_it_was(tmp_path: Path) -> None:
    """A table in the way of a later step undoes the earlier ones, so that the next try is whole."""
    with contextlib.closing(sqlite3.connect(tmp_path / "gateway.db")) as stranger:
        stranger.execute("CREATE TABLE rollouts (other TEXT)")
        with pytest.raises(StoreUnavailable):
            await open_database(f"sqlite:///{tmp_path}/gateway.db")
        tables = stranger.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        assert tables == [("rollouts",)]
        stranger.execute("DROP TABLE rollouts")
    database = await open_database(f"sqlite:///{tmp_path}/gateway.db")
    await VersionStore(database).add_version(_version("m"), actor="t")
    await database.close()


async def test_a_commit_of_anybody_is_seen_without_a_query(tmp_path: Path) -> None:
    """SQLite counts commits, of this gateway and of another; a read is none."""
    url = f"sqlite:///{tmp_path}/gateway.db"
    database, other = await open_database(url), await open_database(url)
    seen = [await database.data_version(), await database.data_version()]
    await VersionStore(database).generation()
    seen.append(await database.data_version())
    assert len(set(seen)) == 1
    for writer in (database, other):
        await VersionStore(writer).add_version(_version(f"m{len(seen)}"), actor="t")
        seen.append(await database.data_version())
    assert len(set(seen)) == 3
    for each in (database, other):
        await each.close()


@pytest.mark.postgres
async def test_a_server_that_does_not_answer_is_not_waited_for() -> None:
    """Reads and writes fail in time while PostgreSQL stands still, and work again after it."""
    if (binaries := find_binaries()) is None:
        pytest.skip("no PostgreSQL server on this machine (Debian: package postgresql)")
    with running_postgres_server(binaries) as server:
        database = await open_database(server.url, answer_timeout_s=1.0)
        store = VersionStore(database)
        await store.add_version(_version("m"), actor="t")
        with server.halted():
            with pytest.raises(StoreUnavailable):
                await store.generation()
            with pytest.raises(StoreUnavailable):
                await store.add_version(_version("n"), actor="t")
        await store.add_version(_version("o"), actor="t")
        assert {row.model for row in (await store.read_all()).versions} == {"m", "o"}
        await database.close()


async def test_a_sqlite_commit_survives_a_power_cut(tmp_path: Path) -> None:
    """SQLite runs with WAL and synchronous=FULL on every connection."""
    database = await open_database(f"sqlite:///{tmp_path}/gateway.db")
    async with database.read() as session:
        assert (await session.execute(text("PRAGMA journal_mode"))).scalar() == "wal"
        assert (await session.execute(text("PRAGMA synchronous"))).scalar() == 2
        assert (await session.execute(text("PRAGMA foreign_keys"))).scalar() == 1
    await database.close()


async def test_the_first_version_becomes_champion_and_later_ones_do_not(
    store: VersionStore,
) -> None:
    """Registering never moves an alias but the very first time."""
    await store.add_version(_version("m", 1), actor="t")
    await store.add_version(_version("m", 2), actor="t")
    rows = await store.read_all()
    assert [(a.model, a.alias, a.version) for a in rows.aliases] == [("m", "champion", 1)]
    assert sorted(v.version for v in rows.versions) == [1, 2]


async def test_what_is_gone_begins_anew_with_the_next_version(store: VersionStore) -> None:
    """A model whose source took it away is shown again, with the new version as champion."""
    await store.add_version(_version("m", 1), actor="t")
    assert await store.set_source("m", None)
    assert not await store.set_source("m", None)
    await store.add_version(_version("m", 2), actor="t")
    rows = await store.read_all()
    assert [model.source for model in rows.models] == ["test"]
    assert [(a.alias, a.version) for a in rows.aliases] == [("champion", 2)]


async def test_every_change_raises_the_generation(store: VersionStore) -> None:
    """A cache that compares the generation misses nothing."""
    seen = [await store.generation()]
    await store.add_version(_version("m"), actor="t")
    seen.append(await store.generation())
    await store.set_desired("m", add={1}, actor="t")
    seen.append(await store.generation())
    await store.quarantine("m", 1, "it crashes")
    seen.append(await store.generation())
    await store.set_desired("m", remove={1}, actor="t")
    seen.append(await store.generation())
    await store.add_version(_version("m", 2), actor="t")
    await store.replace_champion("m", 2, swap_desired=False, actor="t")
    seen.append(await store.generation())
    assert seen == sorted(set(seen))


async def test_names_that_differ_only_in_case_are_refused(store: VersionStore) -> None:
    """The repository is the same on a file system that does not tell case apart."""
    await store.add_version(_version("Model"), actor="t")
    with pytest.raises(VersionConflict):
        await store.add_version(_version("model"), actor="t")


async def test_a_version_is_recorded_once(store: VersionStore) -> None:
    """Of two gateways that record the same number, one is refused and nothing is overwritten."""
    await store.add_version(_version("m"), actor="t")
    generation = await store.generation()
    with pytest.raises(VersionConflict):
        await store.add_version(_version("m"), actor="t")
    assert await store.generation() == generation


async def test_loading_again_lifts_a_quarantine(store: VersionStore) -> None:
    """A version in quarantine gets another chance when somebody asks for it."""
    await store.add_version(_version("m"), actor="t")
    await store.quarantine("m", 1, "it crashes")
    await store.set_desired("m", add={1}, actor="t")
    rows = await store.read_all()
    assert rows.quarantine == []
    assert [d.version for d in rows.desired] == [1]


async def test_a_replaced_champion_hands_its_load_over(store: VersionStore) -> None:
    """With `swap_desired` the new champion is to be loaded and the old one is not, in one step."""
    await store.add_version(_version("m", 1), actor="t")
    await store.add_version(_version("m", 2), actor="t")
    await store.set_desired("m", add={1}, actor="t")
    await store.replace_champion("m", 2, swap_desired=True, actor="t")
    rows = await store.read_all()
    assert [a.version for a in rows.aliases] == [2]
    assert [d.version for d in rows.desired] == [2]


async def test_a_configuration_is_replaced_alone(store: VersionStore) -> None:
    """Only the versions that are named get another configuration; caches learn that they do."""
    for version in (1, 2):
        await store.add_version(_version("m", version), actor="t")
    before = await store.generation()
    await store.replace_configs("m", {2: "name: 'm' # tuned"}, actor="tune")
    rows = await store.read_all()
    assert {row.version: row.config for row in rows.versions} == {
        1: "name: 'm'",
        2: "name: 'm' # tuned",
    }
    assert rows.generation > before


async def test_concurrent_writers_all_succeed(store: VersionStore) -> None:
    """Thirty-two changes at once are all made, none lost to a lock."""
    await asyncio.gather(*(store.add_version(_version(f"m{i}"), actor="t") for i in range(32)))
    assert len((await store.read_all()).models) == 32


async def test_a_database_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    """A folder that is no folder is StoreUnavailable, with the cause kept."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable):
        await open_database(f"sqlite:///{tmp_path}/file/gateway.db")
    if os.geteuid() != 0:
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(StoreUnavailable):
            await open_database(f"sqlite:///{tmp_path}/closed/gateway.db")


async def test_the_audit_log_is_append_only_and_says_from_where(database: Database) -> None:
    """A row has its request's origin; to change or delete one is refused by the database itself."""
    token = ORIGIN.set(Origin("10.0.0.7", "r1"))
    try:
        await VersionStore(database).add_version(_version("m"), actor="key ci")
    finally:
        ORIGIN.reset(token)
    await VersionStore(database).set_desired("m", add={1}, actor="gateway")
    log = AuditStore(database)
    rows = await log.read(limit=10)
    told = [(row.action, row.actor, row.source, row.request_id) for row in rows]
    assert told == [("register", "key ci", "10.0.0.7", "r1"), ("load", "gateway", "", "")]
    assert [row.action for row in await log.read(limit=1)] == ["load"]
    assert [row.action for row in await log.read(after=rows[0].id, limit=9)] == ["load"]
    assert [row.action for row in await log.read(actor="key ci", limit=9)] == ["register"]
    for change in ("UPDATE audit SET actor = 'nobody'", "DELETE FROM audit"):
        with pytest.raises((StoreUnavailable, IntegrityError)):
            async with database.write() as session:
                await session.execute(text(change))
    assert len(await log.read(limit=10)) == 2
