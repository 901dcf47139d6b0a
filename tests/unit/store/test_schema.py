"""Migrations: each only adds or relaxes, so that the release before runs on the newest schema."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory

from gateway.errors import StoreUnavailable
from gateway.store.database import open_database
from gateway.store.schema import alembic_config
from gateway.store.tables import StateRow
from gateway.store.versions import NewVersion, VersionStore


@dataclass(frozen=True)
class _Column:
    kind: str
    needed: bool


_Schema = dict[str, dict[str, _Column]]


def _read(connection: sa.Connection) -> tuple[_Schema, dict[str, set[tuple[str, ...]]]]:
    """Read columns, and what must be unique or must exist elsewhere, by table."""
    inspector = sa.inspect(connection)
    columns, bounds = {}, {}
    for table in inspector.get_table_names():
        key = inspector.get_pk_constraint(table)["constrained_columns"]
        columns[table] = {
            column["name"]: _Column(
                str(column["type"]),
                needed=not column["nullable"]
                and column["default"] is None
                and not (key == [column["name"]] and str(column["type"]) == "INTEGER"),
            )
            for column in inspector.get_columns(table)
        }
        unique = [tuple(found["column_names"]) for found in inspector.get_unique_constraints(table)]
        unique += [
            tuple(str(name) for name in index["column_names"])
            for index in inspector.get_indexes(table)
            if index["unique"]
        ]
        foreign = [tuple(key["constrained_columns"]) for key in inspector.get_foreign_keys(table)]
        bounds[table] = {*unique, *foreign}
    columns.pop("alembic_version", None)
    return columns, bounds


@pytest.fixture
def migrating(tmp_path: Path) -> Iterator[tuple[sa.Connection, Callable[[str], None], list[str]]]:
    """Yield a connection, a function that migrates to a revision, and all revisions in order."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/gateway.db")
    with engine.connect() as connection:
        config = alembic_config(connection)
        scripts = ScriptDirectory.from_config(config)
        revisions = [script.revision for script in scripts.walk_revisions()][::-1]
        yield connection, lambda revision: command.upgrade(config, revision), revisions
    engine.dispose()


def _oldest(connection: sa.Connection) -> str:
    return str(connection.scalar(sa.text("SELECT compatible_from FROM state")))


_Migrating = tuple[sa.Connection, Callable[[str], None], list[str]]


def test_a_migration_only_adds_or_relaxes(migrating: _Migrating) -> None:
    """
    No table or column goes, none changes its type or becomes needed, and nothing that was allowed
    is forbidden, since the oldest schema whose code may still run.
    """
    connection, to, revisions = migrating
    schemas = {}
    for revision in revisions:
        to(revision)
        schemas[revision] = _read(connection)
    since = revisions.index(_oldest(connection))
    for before, after in zip(revisions[since:], revisions[since + 1 :], strict=False):
        (old, old_bounds), (new, new_bounds) = schemas[before], schemas[after]
        assert old.keys() <= new.keys(), f"{after} drops {old.keys() - new.keys()}"
        for table, columns in old.items():
            gone = columns.keys() - new[table].keys()
            assert not gone, f"{after} drops {gone} of {table}"
            changed = [name for name, old_ in columns.items() if old_.kind != new[table][name].kind]
            assert not changed, f"{after} changes the type of {changed} of {table}"
            was_needed = {name for name, column in columns.items() if column.needed}
            needed = {name for name, column in new[table].items() if column.needed} - was_needed
            assert not needed, f"{after} asks for {needed} of {table}, which nobody writes yet"
            stricter = new_bounds[table] - old_bounds[table]
            assert not stricter, f"{after} forbids what was allowed: {stricter} of {table}"


def test_what_an_older_release_writes_the_newest_schema_takes(migrating: _Migrating) -> None:
    """A row of each table with the columns that an older schema has, and no others."""
    connection, to, revisions = migrating
    to(revisions[0])
    seen = {}
    for revision in revisions:
        to(revision)
        seen[revision] = _read(connection)[0]
    since = revisions.index(_oldest(connection))
    for number, revision in enumerate(revisions[since:]):
        for table, columns in seen[revision].items():
            if table in {"state", "audit"} and number:
                continue  # one row, or one that stays
            values = {name: _value(column.kind, number) for name, column in columns.items()}
            target = sa.table(table, *(sa.column(name) for name in values))
            if table == "state":
                connection.execute(sa.update(target).values(generation=2))
            else:
                connection.execute(sa.insert(target).values(values))
            connection.execute(sa.select(target)).all()


def _value(kind: str, number: int) -> Any:
    if kind.startswith(("VARCHAR", "TEXT", "JSON")):
        return f"{number}"
    return number


async def _made_by_a_newer_release(path: Path, compatible_from: str) -> str:
    url = f"sqlite:///{path}/gateway.db"
    database = await open_database(url)
    async with database.write() as session:
        await session.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
        await session.execute(sa.update(StateRow).values(compatible_from=compatible_from))
        await session.execute(sa.text("ALTER TABLE models ADD COLUMN newer TEXT"))
    await database.close()
    return url


async def test_a_newer_schema_that_allows_it_is_worked_with(tmp_path: Path) -> None:
    """During a rolling upgrade the release before may be started again: it changes no schema."""
    url = await _made_by_a_newer_release(tmp_path, "0005")
    database = await open_database(url)
    await VersionStore(database).add_version(
        NewVersion("m", 1, "d", "d", 1, {}, "", (), "test"), actor="t"
    )
    async with database.read() as session:
        assert await session.scalar(sa.text("SELECT version_num FROM alembic_version")) == "9999"
    await database.close()


async def test_a_newer_schema_that_forbids_it_is_refused_in_one_line(tmp_path: Path) -> None:
    """The text names both schemas and what to do."""
    url = await _made_by_a_newer_release(tmp_path, "9999")
    with pytest.raises(StoreUnavailable, match=r"schema 9999 of a newer release.*Start the newer"):
        await open_database(url)
