"""Transactions in threads, and what happens when the database is locked, away, or somebody else's."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import IntegrityError, OperationalError, StatementError

from bench.kit.postgres import Postgres
from model_core.errors import StageUnavailable
from service.database.engine import Database, after_commit, passing, put_if_absent
from service.database.place import DatabaseUnusable
from service.database.schema import ADDED, ENDPOINTS, JOBS, METADATA, OUTBOX, SCHEMA, VERSION


def add(name: str) -> Callable[[Connection], None]:
    def work(connection: Connection) -> None:
        connection.execute(OUTBOX.insert().values(id=name, kind="usage"))

    return work


def count(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(OUTBOX)).scalar_one()


def driver_error(name: str) -> OperationalError:
    """What SQLAlchemy makes of an error of SQLite's driver."""
    cause = sqlite3.OperationalError(name)
    cause.sqlite_errorname = name
    return OperationalError("SELECT 1", {}, cause)


class Failing:
    """Work that fails so many times before it counts the rows."""

    def __init__(self, times: int, error: Exception) -> None:
        self.times, self.error, self.runs = times, error, 0

    def __call__(self, connection: Connection) -> int:
        self.runs += 1
        add(f"run-{self.runs}")(connection)
        if self.runs <= self.times:
            raise self.error
        return count(connection)


async def test_a_call_is_one_transaction(database: Database) -> None:
    await database.run(add("a"))

    def half(connection: Connection) -> None:
        add("b")(connection)
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        await database.run(half)
    assert await database.run(count, write=False) == 1


async def test_sql_runs_in_other_threads(database: Database) -> None:
    def thread(connection: Connection) -> int:
        return threading.get_ident()

    ours = {threading.get_ident()}
    assert {await database.run(thread), await database.run(thread, write=False)}.isdisjoint(ours)


async def test_many_writers_lose_nothing(database: Database) -> None:
    await asyncio.gather(*(database.run(add(f"row-{number}")) for number in range(50)))
    assert await database.run(count) == 50


async def test_a_transaction_is_tried_again_after_what_passes(database: Database) -> None:
    work = Failing(2, driver_error("SQLITE_BUSY"))
    assert await database.run(work) == 1  # what failed was undone
    assert work.runs == 3


async def test_a_defect_is_not_tried_again(database: Database) -> None:
    work = Failing(9, driver_error("SQLITE_ERROR"))
    with pytest.raises(OperationalError):
        await database.run(work)
    assert work.runs == 1


class Restless:
    """A clock by which every wait is over at once, and no time passes otherwise."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        self._now += seconds


async def test_a_database_that_stays_away_is_reported_within_bounds(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    database = await Database.open(database_url, threads=1, timeout_s=20.0, clock=Restless())
    work = Failing(10**9, driver_error("SQLITE_BUSY"))
    with caplog.at_level(logging.WARNING), pytest.raises(StageUnavailable, match="the database does not answer"):
        await database.run(work)
    assert work.runs > 1
    assert "the database does not answer: SQLITE_BUSY" in caplog.text
    await database.close()


async def test_a_closed_database_says_so(database_url: str) -> None:
    database = await Database.open(database_url)
    await database.close()
    with pytest.raises(StageUnavailable, match="shutting down"):
        await database.run(count)


async def test_errors_show_no_values(database: Database) -> None:
    await database.run(add("planted-secret"))
    with pytest.raises(IntegrityError) as caught:
        await database.run(add("planted-secret"))
    # PostgreSQL itself names the key that is there twice; SQLAlchemy would show all values, and SQLite's driver shows none.
    shown = str(caught.value).replace("(id)=(planted-secret)", "")
    assert "planted-secret" not in shown


async def test_what_is_to_come_after_the_commit_comes_once_or_not_at_all(database: Database) -> None:
    told: list[str] = []
    failing = Failing(2, driver_error("SQLITE_BUSY"))

    def work(connection: Connection) -> int:
        after_commit(connection, lambda: told.append("counted"))
        return failing(connection)

    assert await database.run(work) == 1
    assert (failing.runs, told) == (3, ["counted"])
    failing.times = 9
    failing.error = ValueError("a defect")
    with pytest.raises(ValueError, match="a defect"):
        await database.run(work)
    assert told == ["counted"]
    await database.run(count, write=False)
    assert told == ["counted"], "the next transaction knows nothing of it"


async def test_a_row_is_put_once(database: Database) -> None:
    values = {"id": "one", "kind": "usage"}
    assert await database.run(lambda connection: put_if_absent(connection, OUTBOX, values))
    assert not await database.run(lambda connection: put_if_absent(connection, OUTBOX, values))


async def test_front_doors_that_start_together_make_the_tables_once(database_url: str) -> None:
    doors = await asyncio.gather(*(Database.open(database_url, threads=1, timeout_s=60.0) for _ in range(4)))
    names = await doors[0].run(lambda connection: connection.scalars(select(SCHEMA.c.version)).all(), write=False)
    assert names == [VERSION]
    await asyncio.gather(*(door.close() for door in doors))


async def test_tables_of_another_version_are_refused(database_url: str) -> None:
    database = await Database.open(database_url)

    def newer(connection: Connection) -> None:
        connection.execute(SCHEMA.update().values(version=VERSION + 1))

    await database.run(newer)
    await database.close()
    with pytest.raises(DatabaseUnusable, match=f"tables of version {VERSION + 1}; this Headrace reads version {VERSION}"):
        await Database.open(database_url)


async def test_tables_of_an_earlier_headrace_get_the_columns_that_they_lack_once(database_url: str) -> None:
    earlier = await Database.open(database_url)

    def write(name: str, connection: Connection) -> None:  # which knows nothing of them
        for table in (JOBS, OUTBOX):
            connection.execute(table.insert().values(id=name))

    def without(connection: Connection) -> None:
        for column in ADDED:
            connection.execute(text(f"ALTER TABLE {column.table.name} DROP COLUMN {column.name}"))
        write("old", connection)

    def read(connection: Connection) -> list[list[tuple[object, ...]]]:
        return [[tuple(row) for row in connection.execute(select(column.table.c.id, column)).all()] for column in ADDED]

    await earlier.run(without)
    doors = await asyncio.gather(*(Database.open(database_url, threads=1, timeout_s=60.0) for _ in range(3)))
    assert await doors[0].run(read, write=False) == [[("old", None)] for _ in ADDED]
    await earlier.run(partial(write, "new"))
    assert [len(rows) for rows in await doors[1].run(read, write=False)] == [2 for _ in ADDED]
    await asyncio.gather(*(door.close() for door in (earlier, *doors)))


async def test_a_table_that_was_added_since_is_made(database_url: str) -> None:
    database = await Database.open(database_url)
    await database.run(add("kept"))
    await database.run(ENDPOINTS.drop)
    await database.close()
    again = await Database.open(database_url)
    assert await again.run(lambda connection: connection.execute(select(ENDPOINTS)).all(), write=False) == []
    assert await again.run(count, write=False) == 1
    await again.close()


async def test_tables_of_another_program_are_left_alone(database_url: str) -> None:
    database = await Database.open(database_url)

    def another_program(connection: Connection) -> None:
        METADATA.drop_all(connection)
        connection.execute(text("CREATE TABLE jobs (id integer)"))

    await database.run(another_program)
    await database.close()
    with pytest.raises(DatabaseUnusable, match="has tables of another program: jobs; name an empty database"):
        await Database.open(database_url)


async def test_a_bad_url_is_refused_in_the_words_of_the_setting() -> None:
    with pytest.raises(DatabaseUnusable, match=r"state\.url must be sqlite:///FILE or postgresql://USER@HOST/NAME; got mysql:"):
        await Database.open("mysql://u@h/jobs")


async def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    url = "postgresql://u:planted-secret@127.0.0.1:1/jobs"
    with pytest.raises(DatabaseUnusable, match=r"state\.url: postgresql://u:\*\*\*@127\.0\.0\.1:1/jobs: .*refused") as caught:
        await Database.open(url, "planted-secret", timeout_s=0.1)
    assert "planted-secret" not in str(caught.value)


async def test_sqlite_reads_while_another_process_writes(tmp_path: Path) -> None:
    file = tmp_path / "headrace.db"
    database = await Database.open(f"sqlite:///{file}", timeout_s=0.2)
    assert database.backend == "sqlite"
    other = sqlite3.connect(file, isolation_level=None)
    assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    other.execute("BEGIN IMMEDIATE")
    assert await database.run(count, write=False) == 0
    with pytest.raises(StageUnavailable):
        await database.run(count)  # it might write, and waits for its turn
    other.execute("COMMIT")
    other.close()
    await database.run(add("a"))
    await database.close()


async def test_postgresql_may_restart_under_a_front_door(postgres: Postgres) -> None:
    database = await Database.open(postgres.fresh(), threads=2, timeout_s=30)
    await database.run(add("before"))
    postgres.stop(crash=True)
    later = asyncio.create_task(database.run(add("after")))
    await asyncio.to_thread(postgres.start)
    await later
    assert await database.run(count) == 2
    await database.close()


async def test_a_connection_that_breaks_in_a_transaction_is_replaced(postgres: Postgres) -> None:
    database = await Database.open(postgres.fresh(), threads=1, timeout_s=60.0)
    runs = 0

    def work(connection: Connection) -> int:
        nonlocal runs
        runs += 1
        add("a")(connection)
        if runs == 1:
            postgres.break_connections()
        return count(connection)

    assert await database.run(work) == 1
    assert runs == 2
    await database.close()


def test_what_passes_and_what_does_not() -> None:
    assert all(passing(driver_error(name)) for name in ("SQLITE_BUSY", "SQLITE_BUSY_SNAPSHOT", "SQLITE_FULL", "SQLITE_IOERR_WRITE"))
    assert not passing(driver_error("SQLITE_ERROR"))
    assert not passing(StatementError("no", "SELECT 1", {}, ValueError()))
    assert not passing(ValueError())


async def test_a_transaction_of_sqlite_waits_for_the_disk_unless_it_is_lazy(tmp_path: Path) -> None:
    database = await Database.open(f"sqlite:///{tmp_path}/headrace.db", threads=1, timeout_s=60.0)

    def synchronous(connection: Connection) -> int:
        return int(connection.execute(text("PRAGMA synchronous")).scalar_one())

    normal, full = 1, 2
    assert [await database.run(synchronous, lazy=lazy) for lazy in (True, False, True)] == [normal, full, normal]
    await database.close()
