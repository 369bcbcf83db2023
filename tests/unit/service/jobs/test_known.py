"""Jobs that are kept are as new as the table, after every write that there is to a row, even where time stands still."""

from __future__ import annotations

import ast
import traceback
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Delete, Insert, Update, event

import service.jobs
from service.database.engine import Database
from service.database.schema import JOBS
from service.jobs.desk.known import KnownJobs
from service.jobs.desk.queries import batch_jobs
from service.jobs.job import Job, JobError, JobNotFound
from service.jobs.table.sweep import Sweep
from service.jobs.work import Checkpoint
from tests.fakes import ManualClock
from tests.jobs import ALICE, BOB, FINISHED, LEASE_S, POLICY, Jobs, new_job

FOLDER = Path(service.jobs.__file__).parent


class Writes:
    """Which functions of `service.jobs` wrote to the table of jobs."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def watch(self, connection: Connection) -> None:
        event.listen(connection.engine, "before_execute", self._note)

    def _note(self, _connection: object, statement: Any, *_: object) -> None:
        if not (isinstance(statement, Insert | Update | Delete) and statement.table is JOBS):
            return
        ours = [frame for frame in traceback.extract_stack() if Path(frame.filename).is_relative_to(FOLDER)]
        if ours:
            self.seen.add(ours[-1].name)


def writers() -> set[str]:
    """Functions of `service.jobs` that hold a statement which writes to the table of jobs."""
    found: set[str] = set()
    for file in FOLDER.rglob("*.py"):
        for function in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(function, ast.FunctionDef) and any(_writes(node) for node in ast.walk(function)):
                found.add(function.name)
    return found


def _writes(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Attribute):
        return node.func.attr in {"insert", "update", "delete"} and _is_table(node.func.value)
    named = isinstance(node.func, ast.Name) and node.func.id in {"insert", "update", "delete", "put_if_absent"}
    return named and any(_is_table(argument) for argument in node.args)


def _is_table(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "JOBS"


class Walk:
    """Compares what is kept with the table, after each step."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self.known = KnownJobs(jobs.database)
        self.ids: list[str] = []

    async def step(self, work: Awaitable[Any]) -> Any:
        done = await work
        assert await self.known.read(self.ids) == await self.jobs.store.read(self.ids)
        return done

    async def submit(self, **changes: Any) -> str:
        made: Job = await self.step(self.jobs.desk.submit(ALICE, new_job(**changes)))
        self.ids.append(made.id)
        await self.known.read(self.ids)
        return made.id

    async def claim(self) -> tuple[str, int]:
        (claimed,) = await self.step(self.jobs.store.claim("worker", self.jobs.wall(), LEASE_S, 1))
        return claimed.job.id, claimed.fence


async def test_what_is_kept_is_what_the_table_has_after_every_write(database: Database) -> None:
    jobs, writes = Jobs(database), Writes()
    await database.run(writes.watch)
    walk, store, desk = Walk(jobs), jobs.store, jobs.desk
    sweep = Sweep(database, jobs.files, POLICY, ManualClock(), jobs.wall, jobs.ends)

    await walk.submit()
    one, fence = await walk.claim()
    await walk.step(store.beat(one, fence, LEASE_S, 0))
    await walk.step(store.beat(one, fence, LEASE_S, 4))
    await walk.step(store.checkpoint(one, fence, Checkpoint(("part",), "record", 8)))
    await walk.step(store.release(one, fence))
    one, fence = await walk.claim()
    await walk.step(store.complete(one, fence, FINISHED))

    await walk.step(desk.cancel(ALICE, await walk.submit()))
    cancelled = await walk.submit()
    fence = (await walk.claim())[1]
    await walk.step(desk.cancel(ALICE, cancelled))
    await walk.step(store.cancelled(cancelled, fence))
    await walk.submit()
    failed, fence = await walk.claim()
    await walk.step(store.fail(failed, fence, JobError("internal", "it broke")))
    await walk.submit()
    for _ in range(POLICY.max_lost):
        await walk.claim()
        jobs.wall.at += LEASE_S + 1
        await walk.step(store.recover())
    await walk.submit()
    gone, fence = await walk.claim()
    await walk.step(store.complete(gone, fence, FINISHED))
    await walk.step(desk.delete(ALICE, gone))
    batch = await walk.step(desk.submit_batch(ALICE, [new_job(), new_job()]))
    walk.ids += [job.id for job in (await database.run(lambda connection: _of_batch(connection, batch), write=False))]
    await walk.step(desk.delete(ALICE, walk.ids[-1]))
    await walk.step(sweep.once())
    jobs.wall.at += POLICY.max_queued_s + 1  # what is queued fails, and what is over expires
    for _ in range(3):
        await walk.step(sweep.once())
        jobs.wall.at += POLICY.keep_s + POLICY.max_ttl_s
    assert await walk.known.read(walk.ids) == {}
    assert writes.seen == writers()


def _of_batch(connection: Connection, batch: str) -> list[Job]:
    return batch_jobs(connection, ALICE, batch, -1, 10)


async def test_a_job_that_did_not_change_is_the_same_object_and_not_read_again(database: Database) -> None:
    jobs, known = Jobs(database), KnownJobs(database)
    made = (await jobs.desk.submit(ALICE, new_job())).id
    first = (await known.read([made]))[made]
    statements: list[str] = []
    await database.run(lambda connection: event.listen(connection.engine, "before_cursor_execute", lambda *a: statements.append(a[2])))
    assert (await known.read([made]))[made] is first
    assert len([text for text in statements if "prompt" in text]) == 0
    await jobs.desk.cancel(ALICE, made)
    assert (await known.read([made]))[made] is not first


async def test_no_more_are_kept_than_may_be(database: Database) -> None:
    jobs, known = Jobs(database), KnownJobs(database, most=2)
    ids = [(await jobs.desk.submit(ALICE, new_job())).id for _ in range(3)]
    before = await known.read(ids)
    after = await known.read(ids)
    assert before == after
    assert [after[job_id] is before[job_id] for job_id in ids] == [False, True, True]


async def test_a_large_job_is_not_kept(database: Database) -> None:
    jobs, known = Jobs(database), KnownJobs(database)
    made = (await jobs.desk.submit(ALICE, new_job(labels={f"l{number}": "x" * 500 for number in range(16)}))).id
    first = (await known.read([made]))[made]
    again = (await known.read([made]))[made]
    assert again == first
    assert again is not first


async def test_another_tenants_job_is_not_found_though_it_is_kept(database: Database) -> None:
    jobs = Jobs(database)
    made = (await jobs.desk.submit(ALICE, new_job())).id
    assert (await jobs.desk.get(ALICE, made)).id == made
    with pytest.raises(JobNotFound):
        await jobs.desk.get(BOB, made)
