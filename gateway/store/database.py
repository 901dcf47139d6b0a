"""
The database: SQLite by default, PostgreSQL by URL. Reads share a pool; writes go one at a time.

SQLite runs with WAL and synchronous=FULL, so that a commit survives a power cut, and every write
begins IMMEDIATE, so that two writers wait for each other instead of failing half way. WAL is a
property of the file and is set where the schema is: to switch needs every lock of the file, and
SQLite does not wait for those, it fails at once.

Errors of the driver leave this package as `StoreUnavailable`; a broken constraint stays an
`IntegrityError`, because only the caller knows what it means.
"""

import asyncio
import contextlib
import errno
import importlib
import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from gateway.errors import StoreFull, StoreUnavailable
from gateway.store.schema import BUSY_TIMEOUT_S, is_sqlite, migrate, postgresql_url

# Waiting for the turn to write counts, too. A server that was halted, or that a network has cut off
# without a word, would otherwise be waited for as long as TCP likes: hours.
ANSWER_TIMEOUT_S = 30.0
# The second: the index of the write-ahead log could not grow.
_SQLITE_FULL = frozenset({"SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"})
_POSTGRESQL_FULL = "53100"


class Database:
    """An open database. Make it with `open_database`."""

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        sqlite_path: str | None = None,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> None:
        self._engine = engine
        self._answer_timeout_s = answer_timeout_s
        self._observer = _SqliteObserver(sqlite_path) if sqlite_path else None
        self._file = SqliteFile(sqlite_path) if sqlite_path else None
        self._writing = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """
        A session that only reads.

        Raises:
            StoreUnavailable: The database cannot be reached, or does not answer.
        """
        with _driver_errors():
            async with (
                asyncio.timeout(self._answer_timeout_s),
                AsyncSession(self._engine, expire_on_commit=False) as session,
            ):
                yield session

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """
        A transaction: committed at the end of the block, rolled back by an exception.

        Raises:
            StoreUnavailable: The database cannot be reached, does not answer, or stayed locked for
            longer than BUSY_TIMEOUT_S, the wait for one's turn included.
            StoreFull: Its disk is full.
            IntegrityError: A constraint was broken (somebody else was first).
        """
        with _driver_errors():
            async with asyncio.timeout(self._answer_timeout_s), self._turn() as engine:
                if self._file is not None:
                    self._file.check()
                async with (
                    AsyncSession(engine, expire_on_commit=False) as session,
                    session.begin(),
                ):
                    yield session

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[AsyncEngine]:
        """Wait for the turn to write; yield an engine that waits for the rest of the time."""
        began_s = time.monotonic()
        if self._file is None:
            async with self._writing:
                yield self._engine
            return
        async with asyncio.timeout(BUSY_TIMEOUT_S):
            await self._writing.acquire()
        try:
            left_s = began_s + BUSY_TIMEOUT_S - time.monotonic()
            yield self._engine.execution_options(
                sqlite_begin="IMMEDIATE", sqlite_busy_ms=max(1, round(left_s * 1000))
            )
        finally:
            self._writing.release()

    async def data_version(self) -> int | None:
        """
        Tell a number that changes with every commit, at a tenth of a query's cost; None where
        the database has none, so that it must be asked for what one wants to know.

        Raises:
            StoreUnavailable: The database cannot be read.
        """
        if self._observer is None or self._file is None:
            return None
        self._file.check()
        try:
            return await asyncio.to_thread(self._observer.data_version)
        except sqlite3.Error as error:
            raise StoreUnavailable("The database cannot be reached right now.") from error

    async def close(self) -> None:
        """Close every connection. Closing twice is fine."""
        if self._observer is not None:
            await asyncio.to_thread(self._observer.close)
        await self._engine.dispose()


class SqliteFile:
    """
    The file that was opened. SQLite goes on writing into a file that was deleted or replaced since:
    what it says to have kept would be gone.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._opened = self._identity()

    def check(self) -> None:
        """
        Check that the path still leads to the file.

        Raises:
            StoreUnavailable: It does not.
        """
        try:
            found = self._identity()
        except OSError:
            found = None
        if found != self._opened:
            raise StoreUnavailable(
                "The file of the database was deleted or replaced while the gateway runs: nothing "
                "can be recorded. Put it back, or restart the gateway."
            )

    def _identity(self) -> tuple[int, int]:
        stat = os.stat(self._path)  # noqa: PTH116 - on the path of every write
        return stat.st_dev, stat.st_ino


class _SqliteObserver:
    """
    A connection that never writes, and so sees everybody's commits.

    Source: SQLite, PRAGMA data_version.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def data_version(self) -> int:
        with self._lock:
            if self._connection is None:
                self._connection = sqlite3.connect(
                    self._path, timeout=BUSY_TIMEOUT_S, check_same_thread=False
                )
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
            return int(version)

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None


def insert_for(session: AsyncSession) -> Any:
    """Give the `insert` of a session's database: the two spell a conflict alike, and apart."""
    dialects = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
    return dialects[session.get_bind().dialect.name]


def is_there(url: str) -> bool:
    """Whether there is a database to be opened: a server's is taken to be there."""
    parsed = make_url(url)
    return not is_sqlite(parsed) or Path(parsed.database or "").is_file()


async def open_database(url: str, *, answer_timeout_s: float = ANSWER_TIMEOUT_S) -> Database:
    """
    Open a database and bring its tables to the newest schema.

    Args:
        url: A SQLAlchemy URL of SQLite or PostgreSQL; the driver is chosen here.
        answer_timeout_s: How long one reading or one transaction may take, in seconds.

    Raises:
        StoreUnavailable: It cannot be reached or migrated, or a newer release made its schema.
    """
    parsed = make_url(url)
    if is_sqlite(parsed):
        with _driver_errors():
            engine = _sqlite_engine(parsed)
    else:
        _require_psycopg()
        engine = create_async_engine(postgresql_url(parsed), pool_pre_ping=True)
    with _driver_errors():
        await asyncio.to_thread(migrate, parsed)
    return Database(
        engine,
        sqlite_path=parsed.database if is_sqlite(parsed) else None,
        answer_timeout_s=answer_timeout_s,
    )


def _sqlite_engine(url: URL) -> AsyncEngine:
    if not url.database or url.database == ":memory:":
        raise StoreUnavailable("DATABASE_URL: a database in memory would forget everything.")
    Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(
        url.set(drivername="sqlite+aiosqlite"), connect_args={"timeout": BUSY_TIMEOUT_S}
    )

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        # The driver's own BEGIN is switched off; `begin` below says which kind is meant.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        if busy_ms := options.get("sqlite_busy_ms"):
            connection.exec_driver_sql(f"PRAGMA busy_timeout={busy_ms}")
        connection.exec_driver_sql(f"BEGIN {options.get('sqlite_begin', 'DEFERRED')}")

    return engine


def _require_psycopg() -> None:
    try:
        importlib.import_module("psycopg")
    except ImportError as error:
        raise StoreUnavailable(
            "DATABASE_URL names PostgreSQL, which needs the extra postgres: "
            "pip install 'onnx-gateway[postgres]'."
        ) from error


@contextlib.contextmanager
def _driver_errors() -> Iterator[None]:
    try:
        yield
    except IntegrityError:
        raise
    except (DBAPIError, PoolTimeout, OSError) as error:
        if _is_full(error):
            raise StoreFull("The disk of the database is full; nothing was recorded.") from error
        raise StoreUnavailable("The database cannot be reached right now.") from error


def _is_full(error: Exception) -> bool:
    """Whether SQLite, PostgreSQL or the system says that no space is left."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return (
        getattr(cause, "sqlite_errorname", None) in _SQLITE_FULL
        or getattr(cause, "sqlstate", None) == _POSTGRESQL_FULL
        or getattr(cause, "errno", None) in {errno.ENOSPC, errno.EDQUOT}
    )
