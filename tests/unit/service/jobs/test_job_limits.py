"""Jobs within the limits that their tenants have, on each kind of database."""

from __future__ import annotations

from functools import partial

import pytest
from sqlalchemy import Connection, func, select

from service.database.engine import Database
from service.database.schema import RESERVATIONS
from service.identity import limits
from service.identity.job_limits import JobLimits
from service.identity.principal import QuotaExceeded
from service.jobs.job import JobError, JobStatus
from service.jobs.work import EndedJob
from tests.jobs import ALICE, BOB, FINISHED, LEASE_S, Jobs, new_job


def jobs_of(database: Database) -> Jobs:
    quotas = JobLimits(lambda: 1_700_000_000.0)

    def settle(connection: Connection, ended: EndedJob) -> None:
        usage = ended.job.usage if ended.job.status is JobStatus.COMPLETED else None
        quotas.settle(connection, ended.job.id, 0.0 if usage is None else usage.video_s)

    return Jobs(database, quotas=quotas, told=[settle])


async def limit(jobs: Jobs, **values: float) -> None:
    await jobs.database.run(partial(limits.set_limits, tenant="alice", changes=values))


async def spent_and_reserved(jobs: Jobs) -> tuple[float, float]:
    def read(connection: Connection) -> tuple[float, float]:
        reserved = select(func.sum(RESERVATIONS.c.seconds)).where(RESERVATIONS.c.tenant == "alice")
        return limits.limits_of(connection, "alice").spent_seconds, float(connection.execute(reserved).scalar_one() or 0.0)

    return await jobs.database.run(read, write=False)


async def test_seconds_are_reserved_with_a_job_and_settled_with_its_end(database: Database) -> None:
    jobs = jobs_of(database)
    await limit(jobs, budget_seconds=10.0)
    completed, fence = await jobs.running()
    assert await spent_and_reserved(jobs) == (0.0, 4.0)
    await jobs.store.complete(completed, fence, FINISHED)
    assert await spent_and_reserved(jobs) == (4.0, 0.0)
    failed, fence = await jobs.running()
    with pytest.raises(QuotaExceeded, match="budget_seconds of tenant alice is 10"):
        await jobs.desk.submit(ALICE, new_job())
    await jobs.store.fail(failed, fence, JobError("internal", "broken"))
    assert await spent_and_reserved(jobs) == (4.0, 0.0)
    cancelled = await jobs.desk.submit(ALICE, new_job())
    await jobs.desk.cancel(ALICE, cancelled.id)
    assert await spent_and_reserved(jobs) == (4.0, 0.0)
    await jobs.desk.submit(BOB, new_job(seconds=50.0))  # who has no limits


async def test_queued_jobs_are_limited_and_running_ones_do_not_count(database: Database) -> None:
    jobs = jobs_of(database)
    await limit(jobs, queued_jobs=2)
    for _ in range(2):
        await jobs.desk.submit(ALICE, new_job())
    with pytest.raises(QuotaExceeded, match="queued_jobs of tenant alice is 2"):
        await jobs.desk.submit(ALICE, new_job())
    await jobs.store.claim("worker", jobs.wall(), LEASE_S, 1)
    await jobs.desk.submit(ALICE, new_job())


async def test_a_batch_fits_wholly_or_not_at_all(database: Database) -> None:
    jobs = jobs_of(database)
    await limit(jobs, queued_jobs=3, budget_seconds=20.0, requests_per_minute=2)
    with pytest.raises(QuotaExceeded, match="queued_jobs of tenant alice is 3"):
        await jobs.desk.submit_batch(ALICE, [new_job()] * 4)
    with pytest.raises(QuotaExceeded, match="budget_seconds"):
        await jobs.desk.submit_batch(ALICE, [new_job(seconds=8.0)] * 3)
    assert await spent_and_reserved(jobs) == (0.0, 0.0)
    await jobs.desk.submit_batch(ALICE, [new_job(), new_job(seconds=2.0), new_job()])  # one request
    assert await spent_and_reserved(jobs) == (0.0, 10.0)
    (first,) = await jobs.store.claim("worker", jobs.wall(), LEASE_S, 1)
    await jobs.store.complete(first.job.id, first.fence, FINISHED)
    assert await spent_and_reserved(jobs) == (4.0, 6.0)
