"""One database for jobs, keys, usage and audit: a SQLite file for one node, or PostgreSQL for several.

SQL runs in a few threads, never on the event loop. A call of `Database.run` is one transaction. It is tried again for a while when the
database is locked, restarts or cannot be reached, so what runs in it touches nothing but its connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, func, inspect, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.schema import CreateColumn

from model_core.errors import StageUnavailable
from service.clock import Clock, MonotonicClock
from service.database.place import DatabaseUnusable, checked_url, make_file, shown
from service.database.schema import ADDED, METADATA, SCHEMA, VERSION

T = TypeVar("T")

_THREADS = 4
_TIMEOUT_S = 5.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 0.5
_MOST_WAITING = 4096  # calls; each holds its caller's request
_SCHEMA_LOCK = 0x68656164726163  # any number that nobody else takes
_PASSING_SQLITE = tuple(f"SQLITE_{kind}" for kind in ("BUSY", "LOCKED", "IOERR", "CANTOPEN", "FULL", "READONLY", "PROTOCOL"))
_READ_ONLY = "25006"  # what PostgreSQL says that became a standby
_THEN = "headrace_then"  # what is called after the commit, among the options of a connection
_AWAY = "the database does not answer; try again"

log = logging.getLogger(__name__)


class Database:
    """Made by `open`, ended by `close`. Safe to use from one event loop."""

    def __init__(self, engine: Engine, *, threads: int, timeout_s: float, clock: Clock) -> None:
        self._engine = engine
        self._timeout_s = timeout_s
        self._clock = clock
        self._waiting = 0
        self._closed = False
        self._readers = ThreadPoolExecutor(threads, "database")
        # SQLite has one writer at a time: in line here, they do not poll for its lock.
        self._writers = ThreadPoolExecutor(1, "database-write") if engine.dialect.name == "sqlite" else self._readers

    @classmethod
    async def open(
        cls, url: str, password: str | None = None, *, threads: int = _THREADS, timeout_s: float = _TIMEOUT_S, clock: Clock | None = None
    ) -> Self:
        """Connect, and make the tables where there are none. Several processes may do so at once.

        Args:
            url: see `checked_url`.
            password: of PostgreSQL; None: the URL's, if it has one.
            threads: that run SQL, each with a connection.
            timeout_s: how long a call waits for the database, and how long one statement may take.
            clock: for that.

        Raises:
            DatabaseUnusable: says what to change.
        """
        try:
            parsed = checked_url(url)
        except ValueError as error:
            raise DatabaseUnusable(f"state.url {error}") from None
        if parsed.get_backend_name() == "sqlite":
            await asyncio.to_thread(make_file, Path(parsed.database or ""))
            engine = _sqlite(parsed, threads, timeout_s)
        else:
            engine = _postgres(parsed if password is None else parsed.set(password=password), threads, timeout_s)
        database = cls(engine, threads=threads, timeout_s=timeout_s, clock=MonotonicClock() if clock is None else clock)
        try:
            await database.run(partial(_make_tables, place=shown(parsed)))
        except StageUnavailable as error:
            await database.close()
            raise DatabaseUnusable(f"state.url: {shown(parsed)}: {_reason(error.__cause__)}") from error
        except BaseException:
            await database.close()
            raise
        return database

    @property
    def backend(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    async def run(self, work: Callable[[Connection], T], *, write: bool = True, lazy: bool = False) -> T:
        """Run `work` in a thread, in one transaction, which is committed when it returns and undone when it raises.

        After a lost connection nobody can know whether a commit arrived, so `work` must come to the same when it runs again.
        A call that is cancelled may still happen, but wholly.

        Args:
            write: False: `work` only reads. SQLite has one writer, and any number of readers beside it.
            lazy: SQLite does not wait for the disk. A power cut may undo it, which ends everybody on the node who knows of it, too. With
                PostgreSQL, others live on who know of it, so it makes no difference there.

        Raises:
            StageUnavailable: the database stays away for some `timeout_s`, or too many calls wait for it.
        """
        if self._closed:
            raise StageUnavailable("the server is shutting down; another one will answer")
        if self._waiting >= _MOST_WAITING:
            raise StageUnavailable(f"{_AWAY}: {_MOST_WAITING} calls wait for it")
        until, pause_s = self._clock.now() + self._timeout_s, _FIRST_PAUSE_S
        threads = self._writers if write else self._readers
        self._waiting += 1
        try:
            while True:
                try:
                    return await asyncio.get_running_loop().run_in_executor(threads, self._once, work, write, lazy, until)
                except (DBAPIError, PoolTimeout) as error:
                    if not passing(error):
                        raise
                    if self._clock.now() + pause_s >= until:
                        log.warning("the database does not answer: %s", _reason(error))
                        raise StageUnavailable(_AWAY) from error
                await self._clock.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """Drop calls that wait, let those that run finish, and close all connections."""
        self._closed = True
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        for threads in (self._writers, self._readers):
            threads.shutdown(wait=True, cancel_futures=True)
        self._engine.dispose()

    def _once(self, work: Callable[[Connection], T], write: bool, lazy: bool, until: float) -> T:
        if self._clock.now() > until:  # it has waited for a thread for so long
            raise StageUnavailable(_AWAY)
        then: list[Callable[[], None]] = []
        with self._engine.connect() as connection:
            connection.execution_options(write=write, lazy=lazy, **{_THEN: then})
            with connection.begin():
                made = work(connection)
        for call in then:
            call()
        return made


def after_commit(connection: Connection, call: Callable[[], None]) -> None:
    """Have `call` called, in the thread of the transaction, once that is committed; not at all where it is undone.

    So what is counted is counted once, though a transaction may run again. It is lost where the answer to a commit gets lost.
    """
    connection.get_execution_options()[_THEN].append(call)


def passing(error: Exception) -> bool:
    """Whether the same transaction may succeed later."""
    if isinstance(error, PoolTimeout):
        return True
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated or getattr(error.orig, "sqlstate", None) == _READ_ONLY:
        return True
    name = getattr(error.orig, "sqlite_errorname", None)
    if name is not None:
        return str(name).startswith(_PASSING_SQLITE)
    return isinstance(error, OperationalError | InterfaceError)


def put_if_absent(connection: Connection, table: Table, values: Mapping[str, Any]) -> bool:
    """Insert one row, unless a row with one of its unique keys is there already. Returns whether it was inserted."""
    insert: sqlite.Insert | postgresql.Insert = sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)
    # SQLAlchemy has the key returned by itself, and then counts no rows.
    put = insert.values(values).on_conflict_do_nothing().returning(*table.primary_key.columns)
    return connection.execute(put).first() is not None


def _sqlite(url: URL, threads: int, timeout_s: float) -> Engine:
    # sqlite3 must not begin transactions by itself: `_begin_sqlite` says which kind.
    engine = create_engine(
        url, hide_parameters=True, pool_size=threads + 1, max_overflow=0, pool_timeout=timeout_s,
        connect_args={"timeout": timeout_s, "isolation_level": None},
    )  # fmt: skip
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _record: object) -> None:
    mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode != "wal":
        raise DatabaseUnusable(f"state.url: the file must be on a file system that can have SQLite's WAL; it stays in mode {mode}")


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    if not options.get("write", True):
        connection.exec_driver_sql("BEGIN")
        return
    connection.exec_driver_sql(f"PRAGMA synchronous={'NORMAL' if options.get('lazy') else 'FULL'}")
    # A transaction that begins by reading and then writes may find that another one wrote in between, and no waiting helps it.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _postgres(url: URL, threads: int, timeout_s: float) -> Engine:
    milliseconds = max(1, round(1000 * timeout_s))
    engine = create_engine(
        url, hide_parameters=True, pool_size=threads, max_overflow=0, pool_timeout=timeout_s, pool_pre_ping=True,
        connect_args={
            "connect_timeout": max(2, round(timeout_s)),
            # A server that vanished is noticed, whether we write to it or wait for it.
            "tcp_user_timeout": milliseconds, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3,
            "application_name": "headrace",
        },
    )  # fmt: skip

    def set_up(connection: Any, _record: object) -> None:
        connection.autocommit = True  # not as options of the connection, which poolers refuse
        for setting in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            connection.execute(f"SET {setting} = {milliseconds}")
        connection.autocommit = False

    event.listen(engine, "connect", set_up)
    return engine


def _make_tables(connection: Connection, place: str) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_SCHEMA_LOCK)))  # SQLite's lock is that of every write
    there = set(inspect(connection).get_table_names())
    if SCHEMA.name not in there:
        if foreign := sorted(there & set(METADATA.tables)):
            raise DatabaseUnusable(f"state.url: {place} has tables of another program: {', '.join(foreign)}; name an empty database")
        METADATA.create_all(connection, checkfirst=False)  # to ask for each takes longer than to make it
        connection.execute(SCHEMA.insert().values(version=VERSION))
        return
    version = connection.scalar(select(func.max(SCHEMA.c.version)))
    if version != VERSION:
        raise DatabaseUnusable(f"state.url: {place} has tables of version {version}; this Headrace reads version {VERSION}")
    # A table that was added is no other version: nobody who does not know it misses it.
    METADATA.create_all(connection, [table for name, table in METADATA.tables.items() if name not in there], checkfirst=False)
    _add_columns(connection)


def _add_columns(connection: Connection) -> None:
    """Those of `ADDED` that the tables lack."""
    found = inspect(connection)
    names = connection.dialect.identifier_preparer
    for column in ADDED:
        if column.name not in {each["name"] for each in found.get_columns(column.table.name)}:
            what = CreateColumn(column).compile(dialect=connection.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {names.format_table(column.table)} ADD COLUMN {what}")


def _reason(error: BaseException | None) -> str:
    """The first line of what the driver says. Statements and their values are not in it."""
    said = str(error.orig if isinstance(error, DBAPIError) else error or "no answer").strip()
    return said.splitlines()[0] if said else type(error).__name__
