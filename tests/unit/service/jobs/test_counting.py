"""Jobs in the metrics: each end counted once, waits and times, and the queue as it is."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection

from observability.metrics import JobMetrics
from service.database.engine import Database
from service.jobs.job import JobError
from service.jobs.table.counting import JobCounts, QueueGauge
from service.jobs.table.sweep import Sweep
from service.jobs.work import EndedJob
from tests.fakes import ManualClock
from tests.jobs import ALICE, FINISHED, LEASE_S, Jobs, new_job


class Counted:
    """Jobs over one table, and what is counted of them. `broken`: the transaction that ends a job is undone."""

    def __init__(self, database: Database) -> None:
        self.registry = CollectorRegistry()
        self.metrics = JobMetrics(self.registry)
        self.counts = JobCounts(self.metrics)
        self.jobs = Jobs(database, told=[self.counts.on_end, self._break])
        self.broken = False

    def _break(self, connection: Connection, ended: EndedJob) -> None:
        if self.broken:
            raise RuntimeError("the transaction is undone")

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"headrace_{name}", labels)

    def ended(self, outcome: str) -> float | None:
        return self.value("jobs_ended_total", door="openai", outcome=outcome)


@pytest.fixture(name="counted")
def _counted(database: Database) -> Counted:
    return Counted(database)


async def test_every_end_is_counted_once_whoever_ends_the_job(counted: Counted) -> None:
    jobs = counted.jobs
    completed, fence = await jobs.running()
    jobs.wall.at += 90.0
    await jobs.store.complete(completed, fence, FINISHED)
    await jobs.store.complete(completed, fence, FINISHED)  # as after a lost connection
    failed, fence = await jobs.running()
    await jobs.store.fail(failed, fence, JobError("internal", "a defect"))
    waiting = await jobs.desk.submit(ALICE, new_job())
    for _ in range(2):
        await jobs.desk.cancel(ALICE, waiting.id)
    await jobs.desk.submit(ALICE, new_job())
    jobs.wall.at += jobs.policy.max_queued_s + 1
    await Sweep(jobs.database, jobs.files, jobs.policy, ManualClock(), jobs.wall, jobs.ends).once()
    assert [counted.ended(outcome) for outcome in ("completed", "failed", "cancelled")] == [1, 2, 1]
    assert (counted.value("job_seconds_count"), counted.value("job_seconds_sum")) == (1, 90.0)
    assert counted.value("job_video_seconds_total", door="openai") == FINISHED.usage.video_s


async def test_an_end_that_is_undone_is_not_counted(counted: Counted) -> None:
    job, fence = await counted.jobs.running()
    counted.broken = True
    with pytest.raises(RuntimeError, match="undone"):
        await counted.jobs.store.complete(job, fence, FINISHED)
    assert counted.ended("completed") is None
    counted.broken = False
    await counted.jobs.store.complete(job, fence, FINISHED)
    assert counted.ended("completed") == 1


async def test_a_wait_is_counted_with_the_first_worker_alone(counted: Counted) -> None:
    jobs = counted.jobs
    await jobs.desk.submit(ALICE, new_job())
    jobs.wall.at += 40.0
    for _ in range(2):
        [claimed] = await jobs.store.claim("worker", jobs.wall(), LEASE_S, 1)
        counted.counts.begun(claimed.job)
        await jobs.store.release(claimed.job.id, claimed.fence)
        jobs.wall.at += 5.0
    assert (counted.value("job_wait_seconds_count"), counted.value("job_wait_seconds_sum")) == (1, 40.0)


async def test_the_queue_is_looked_at_now_and_then(counted: Counted) -> None:
    jobs, clock = counted.jobs, ManualClock()
    gauge = QueueGauge(jobs.database, counted.metrics, clock, jobs.wall)
    await gauge.once()
    assert (counted.value("jobs_queued"), counted.value("jobs_oldest_queued_seconds")) == (0, 0)
    await jobs.desk.submit(ALICE, new_job())
    jobs.wall.at += 30.0
    await jobs.desk.submit(ALICE, new_job())
    jobs.wall.at += 3.0
    await gauge.once()
    assert (counted.value("jobs_queued"), counted.value("jobs_oldest_queued_seconds")) == (2, 33.0)
    await jobs.store.claim("worker", jobs.wall(), LEASE_S, 1)
    await gauge.once()
    assert (counted.value("jobs_queued"), counted.value("jobs_oldest_queued_seconds")) == (1, 3.0)
