"""
The schema of the database: brought up to date at start, by one gateway after the other.

A migration only adds or relaxes, so that the release before still runs on the new schema while a
rolling upgrade replaces it, and may be started again on it. What is to be dropped is dropped one
release later, by a migration that also raises `state.compatible_from`: the oldest schema whose code
runs on this one.

Source: "expand and contract" (parallel change).
"""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, event, inspect, text
from sqlalchemy.engine import URL, Connection, Engine

from gateway.errors import StoreUnavailable

log = structlog.get_logger(__name__)

BUSY_TIMEOUT_S = 5.0
"""How long a writer waits for a SQLite file that somebody else is writing to."""

_MIGRATIONS = Path(__file__).parent / "migrations"
_CONNECT_TIMEOUT_S = "5"
# Any constant that no other application of the same server uses as an advisory lock.
_MIGRATION_LOCK = 0x6F6E_6E78


def migrate(url: URL) -> None:
    """
    Bring a database's schema up to date. A newer one that this release can work with is left.

    Raises:
        StoreUnavailable: A newer release made the schema, and this one cannot work with it.
    """
    sqlite = is_sqlite(url)
    engine = _sqlite_migrating(url) if sqlite else create_engine(postgresql_url(url))
    try:
        with _file_lock(url) if sqlite else contextlib.nullcontext(), engine.begin() as connection:
            if not sqlite:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
            config = alembic_config(connection)
            if not _is_newer(connection, ScriptDirectory.from_config(config)):
                command.upgrade(config, "head")
    finally:
        engine.dispose()


def alembic_config(connection: Connection) -> Config:
    """Configure Alembic to run the migrations on a connection."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def is_sqlite(url: URL) -> bool:
    """Whether a URL names a SQLite database."""
    return url.get_backend_name() == "sqlite"


def postgresql_url(url: URL) -> URL:
    """Choose the driver for a PostgreSQL database, and bound the wait for a connection."""
    waits = {"connect_timeout": _CONNECT_TIMEOUT_S}
    return url.set(drivername="postgresql+psycopg").update_query_dict(waits)


def _is_newer(connection: Connection, scripts: ScriptDirectory) -> bool:
    found = MigrationContext.configure(connection).get_current_revision()
    known = scripts.get_current_head()
    if found is None or found in {script.revision for script in scripts.walk_revisions()}:
        return False
    columns = {column["name"] for column in inspect(connection).get_columns("state")}
    oldest = (
        connection.scalar(text("SELECT compatible_from FROM state"))
        if "compatible_from" in columns
        else None
    )
    if known is None or oldest is None or oldest > known:
        raise StoreUnavailable(
            f"The database has the schema {found} of a newer release; this release knows {known}. "
            "Start the newer release, or use the database's backup from before the upgrade."
        )
    log.warning("schema_is_newer", found=found, known=known, compatible_from=oldest)
    return True


def _sqlite_migrating(url: URL) -> Engine:
    """Make an engine that switches the file to WAL and migrates in one transaction."""
    engine = create_engine(url.set(drivername="sqlite"), connect_args={"timeout": BUSY_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        # The driver would commit before and after each CREATE TABLE.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


@contextlib.contextmanager
def _file_lock(url: URL) -> Iterator[None]:
    with Path(f"{url.database}.migrating").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
