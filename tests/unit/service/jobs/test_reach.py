"""What a token or a ticket that a front door made reaches: the jobs that it made itself, and no others of its tenant."""

from __future__ import annotations

from dataclasses import replace

import pytest

from service.database.engine import Database
from service.jobs.job import IdempotencyConflict, JobNotFound, JobNotReady, JobQuery, JobStatus
from tests.jobs import ALICE, FINISHED, LEASE_S, Jobs, new_job

PAGE = replace(ALICE, derived=True, token="t1")  # noqa: S106 - its name
OTHER_PAGE = replace(PAGE, token="t2")  # noqa: S106 - its name


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database)


async def test_a_page_reaches_the_jobs_that_it_made_and_its_tenant_reaches_all(jobs: Jobs) -> None:
    desk = jobs.desk
    kept, made = (await desk.submit(ALICE, new_job())).id, (await desk.submit(PAGE, new_job())).id
    assert (await desk.get(PAGE, made)).id == made
    assert [job.id for job in (await desk.list(PAGE, JobQuery())).jobs] == [made]
    assert {job.id for job in (await desk.list(ALICE, JobQuery())).jobs} == {kept, made}
    assert (await desk.list(OTHER_PAGE, JobQuery())).jobs == ()
    for page, job_id in ((PAGE, kept), (OTHER_PAGE, made), (OTHER_PAGE, kept)):
        for call in (desk.get(page, job_id), desk.cancel(page, job_id), desk.delete(page, job_id), desk.content(page, job_id)):
            with pytest.raises(JobNotFound):
                await call
        with pytest.raises(JobNotFound):
            await desk.list(page, JobQuery(after=job_id))
    assert (await desk.get(ALICE, kept)).status is JobStatus.QUEUED
    assert (await desk.cancel(PAGE, made)).status is JobStatus.CANCELLED


async def test_a_page_fetches_its_file_and_no_other(jobs: Jobs) -> None:
    made = (await jobs.desk.submit(PAGE, new_job())).id
    [claimed] = await jobs.store.claim("worker", jobs.wall(), LEASE_S, 1)
    with pytest.raises(JobNotReady):
        await jobs.desk.content(PAGE, made)
    await jobs.store.complete(made, claimed.fence, FINISHED)
    jobs.files.put(made, "result")
    assert (await jobs.desk.content(PAGE, made)).size_bytes == FINISHED.size_bytes
    with pytest.raises(JobNotFound):
        await jobs.desk.content(OTHER_PAGE, made)


async def test_batches_are_reached_likewise(jobs: Jobs) -> None:
    desk = jobs.desk
    batch = await desk.submit_batch(ALICE, [new_job()])
    mine = await desk.submit_batch(PAGE, [new_job(), new_job()])
    assert (await desk.batch(PAGE, mine)).counts == {JobStatus.QUEUED: 2}
    assert len([line async for line in desk.manifest(PAGE, mine)]) == 2
    with pytest.raises(JobNotFound):
        await desk.batch(PAGE, batch)
    assert [line async for line in desk.manifest(PAGE, batch)] == []


async def test_the_idempotency_key_of_another_finds_no_job(jobs: Jobs) -> None:
    asked = new_job(idempotency_key="k")
    made = (await jobs.desk.submit(ALICE, asked)).id
    assert (await jobs.desk.submit(ALICE, asked)).id == made
    with pytest.raises(IdempotencyConflict):
        await jobs.desk.submit(PAGE, asked)
