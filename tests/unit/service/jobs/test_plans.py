"""How SQLite finds rows: by an index, however many jobs there are."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection, event

from observability.metrics import JobMetrics
from service.database.engine import Database
from service.jobs.job import JobQuery, JobStatus
from service.jobs.table.counting import QueueGauge
from service.jobs.table.sweep import Sweep
from service.jobs.work import Checkpoint
from tests.fakes import ManualClock
from tests.jobs import ALICE, FINISHED, LEASE_S, Jobs, new_job


class Plans:
    """Notes how each statement of a database finds its rows."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def watch(self, connection: Connection) -> None:
        event.listen(connection.engine, "before_cursor_execute", self._explain)

    def _explain(self, _connection: object, cursor: Any, statement: str, parameters: Any, _context: object, many: bool) -> None:
        if not many and statement.lstrip().startswith(("SELECT", "UPDATE", "DELETE", "WITH")):
            own = cursor.connection.cursor()
            self.lines += [row[3] for row in own.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()]


@pytest.fixture
async def database(tmp_path: Path) -> AsyncGenerator[Database, None]:
    opened = await Database.open(f"sqlite:///{tmp_path}/headrace.db", threads=1, timeout_s=60.0)
    yield opened
    await opened.close()


async def test_nothing_reads_the_whole_table(database: Database) -> None:
    jobs, plans = Jobs(database), Plans()
    await database.run(plans.watch)
    first, fence = await jobs.running(idempotency_key="k")
    await jobs.store.beat(first, fence, LEASE_S, 8)
    await jobs.store.checkpoint(first, fence, Checkpoint(("p",), "r", 8))
    await jobs.store.complete(first, fence, FINISHED)
    second = (await jobs.desk.submit(ALICE, new_job())).id
    batch = await jobs.desk.submit_batch(ALICE, [new_job()])
    await jobs.desk.batch(ALICE, batch)
    assert [line async for line in jobs.desk.manifest(ALICE, batch)]
    for query in (
        JobQuery(), JobQuery(after=second), JobQuery(ascending=True, door="openai"), JobQuery(statuses=frozenset({JobStatus.FAILED})),
        JobQuery(batch=batch), JobQuery(since=1.0, until=2.0),
    ):  # fmt: skip
        await jobs.desk.list(ALICE, query)
    await jobs.desk.cancel(ALICE, second)
    await jobs.desk.delete(ALICE, first)
    await Sweep(database, jobs.files, jobs.policy, ManualClock(), jobs.wall).once()
    await QueueGauge(database, JobMetrics(CollectorRegistry()), ManualClock(), jobs.wall).once()
    assert plans.lines[-1] == "SEARCH jobs USING INDEX jobs_queued (tier=?)", "who counts the queue reads no other jobs"
    # The index of running jobs is as small as they are few.
    scans = {line for line in plans.lines if line.startswith("SCAN jobs") and "jobs_running" not in line}
    assert len(plans.lines) > 20
    assert scans == set()
