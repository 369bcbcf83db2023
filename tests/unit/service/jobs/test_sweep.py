"""What time does to jobs and their files, on each kind of database."""

from __future__ import annotations

import asyncio

import pytest

from model_core.errors import StageUnavailable
from service.database.engine import Database
from service.jobs.job import JobError, JobNotReady, JobQuery, JobStatus
from service.jobs.table.sweep import Aged, Chore, Sweep, Swept, chore
from tests.fakes import ManualClock
from tests.jobs import ALICE, FINISHED, LEASE_S, POLICY, Jobs, new_job

PNG = ("image", b"\x89PNG\r\n\x1a\n" + bytes(32))


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database)


def sweep_of(jobs: Jobs) -> Sweep:
    return Sweep(jobs.database, jobs.files, jobs.policy, ManualClock(), jobs.wall, jobs.ends)


async def slept(clock: ManualClock) -> None:
    """Until somebody waits for time to pass."""
    while not clock.sleepers:  # noqa: ASYNC110 - threads of the database come first
        await asyncio.sleep(0.001)


async def completed(jobs: Jobs) -> str:
    job_id, fence = await jobs.running()
    for name in ("part-0", "record", "result"):
        jobs.files.put(job_id, name)
    await jobs.store.complete(job_id, fence, FINISHED)
    return job_id


def aged(status: JobStatus, files: str = "all", *, deleted: bool = False, expires_at: float | None = 100.0) -> Aged:
    return Aged(status=status, deleted=deleted, files=files, expires_at=expires_at)


@pytest.mark.parametrize(
    ("row", "now", "what"),
    [
        (aged(JobStatus.QUEUED, expires_at=None), 5.0, Chore.FAIL),
        (aged(JobStatus.RUNNING, expires_at=None), 5.0, Chore.NOTHING),
        (aged(JobStatus.COMPLETED), 5.0, Chore.TRIM),
        (aged(JobStatus.COMPLETED, "result"), 5.0, Chore.NOTHING),
        (aged(JobStatus.COMPLETED, "result"), 100.0, Chore.EXPIRE),
        (aged(JobStatus.FAILED), 5.0, Chore.EMPTY),
        (aged(JobStatus.CANCELLED, "none"), 5.0, Chore.NOTHING),
        (aged(JobStatus.CANCELLED, "none"), 100.0, Chore.EXPIRE),
        (aged(JobStatus.EXPIRED, "result"), 100.0, Chore.EMPTY),
        (aged(JobStatus.EXPIRED, "none"), 100.0, Chore.FORGET),
        (aged(JobStatus.COMPLETED, "result", deleted=True), 5.0, Chore.EMPTY),
        (aged(JobStatus.COMPLETED, "none", deleted=True), 5.0, Chore.FORGET),
        (aged(JobStatus.RUNNING, deleted=True, expires_at=None), 5.0, Chore.NOTHING),
    ],
)
def test_what_is_to_be_done(row: Aged, now: float, what: Chore) -> None:
    assert chore(row, now) is what


async def test_a_completed_job_keeps_its_result_until_it_expires_and_then_its_row_for_a_while(jobs: Jobs) -> None:
    job_id, sweep = await completed(jobs), sweep_of(jobs)
    assert await sweep.once() == Swept(emptied=1)
    assert set(jobs.files.held[job_id]) == {"result"}
    assert await sweep.once() == Swept()
    jobs.wall.at += POLICY.ttl_s - 1
    assert await sweep.once() == Swept()
    assert (await jobs.desk.content(ALICE, job_id)).size_bytes == FINISHED.size_bytes
    jobs.wall.at += 1
    assert await sweep.once() == Swept(expired=1, emptied=1)
    assert jobs.files.held == {}
    assert (await jobs.desk.get(ALICE, job_id)).status is JobStatus.EXPIRED
    with pytest.raises(JobNotReady, match="it is expired"):
        await jobs.desk.content(ALICE, job_id)
    assert (await jobs.desk.list(ALICE, JobQuery())).jobs == ()
    assert [job.id for job in (await jobs.desk.list(ALICE, JobQuery(statuses=frozenset({JobStatus.EXPIRED})))).jobs] == [job_id]
    jobs.wall.at += POLICY.keep_s
    assert await sweep.once() == Swept(forgotten=1)
    assert await jobs.columns(job_id) == {}
    assert jobs.ends.statuses == ["completed"]


async def test_a_callers_own_time_to_live_counts(jobs: Jobs) -> None:
    job_id, fence = await jobs.running(ttl_s=10.0)
    await jobs.store.complete(job_id, fence, FINISHED)
    jobs.wall.at += 10
    assert (await sweep_of(jobs).once()).expired == 1


async def test_files_of_a_job_that_failed_go_soon(jobs: Jobs) -> None:
    job_id, fence = await jobs.running(footage=PNG)
    jobs.files.put(job_id, "part-0")
    await jobs.store.fail(job_id, fence, JobError("internal", "broken"))
    assert await sweep_of(jobs).once() == Swept(emptied=1)
    assert jobs.files.held == {}
    jobs.wall.at += POLICY.ttl_s + POLICY.keep_s
    assert await sweep_of(jobs).once() == Swept(expired=1)
    jobs.wall.at += POLICY.keep_s
    assert await sweep_of(jobs).once() == Swept(forgotten=1)


async def test_a_deleted_job_goes_with_its_files(jobs: Jobs) -> None:
    done, sweep = await completed(jobs), sweep_of(jobs)
    await jobs.desk.delete(ALICE, done)
    queued = (await jobs.desk.submit(ALICE, new_job(footage=PNG))).id
    await jobs.desk.delete(ALICE, queued)
    assert await sweep.once() == Swept(emptied=2, forgotten=2)
    assert (jobs.files.held, await jobs.columns(done), await jobs.columns(queued)) == ({}, {}, {})


async def test_a_job_that_is_deleted_while_it_runs_goes_when_its_worker_has_stopped(jobs: Jobs) -> None:
    job_id, fence = await jobs.running()
    jobs.files.put(job_id, "part-0")
    await jobs.desk.delete(ALICE, job_id)
    assert await sweep_of(jobs).once() == Swept()
    await jobs.store.cancelled(job_id, fence)
    assert await sweep_of(jobs).once() == Swept(emptied=1, forgotten=1)
    assert jobs.files.held == {}


async def test_a_job_that_is_deleted_while_it_runs_goes_also_when_its_worker_is_dead(jobs: Jobs) -> None:
    job_id, _ = await jobs.running()
    jobs.files.put(job_id, "part-0")
    await jobs.desk.delete(ALICE, job_id)
    jobs.wall.at += LEASE_S + 1
    assert await sweep_of(jobs).once() == Swept(emptied=1, forgotten=1)
    assert jobs.files.held == {}


async def test_a_job_that_nobody_takes_up_fails(jobs: Jobs) -> None:
    job_id = (await jobs.desk.submit(ALICE, new_job())).id
    jobs.wall.at += POLICY.max_queued_s
    assert await sweep_of(jobs).once() == Swept(failed=1)
    job = await jobs.desk.get(ALICE, job_id)
    assert (job.status, job.error) == (JobStatus.FAILED, JobError("unavailable", "no worker took it up within 10000 s"))
    assert jobs.ends.statuses == ["failed"]


async def test_a_store_that_is_away_is_tried_again_later(jobs: Jobs) -> None:
    job_id, sweep = await completed(jobs), sweep_of(jobs)
    jobs.files.down = True
    with pytest.raises(StageUnavailable):
        await sweep.once()
    jobs.files.down = False
    assert await sweep.once() == Swept()
    jobs.wall.at += 60
    assert await sweep.once() == Swept(emptied=1)
    assert set(jobs.files.held[job_id]) == {"result"}


async def test_several_sweeps_at_once_do_each_thing_once(jobs: Jobs) -> None:
    for _ in range(6):
        await jobs.desk.delete(ALICE, await completed(jobs))
    done = await asyncio.gather(*(sweep_of(jobs).once() for _ in range(3)))
    assert sum(each.forgotten for each in done) == 6
    assert jobs.files.held == {}


async def test_files_without_a_row_go_when_nobody_can_be_about_to_write_it(jobs: Jobs) -> None:
    kept = (await jobs.desk.submit(ALICE, new_job(footage=PNG))).id
    jobs.files.put("stray0000000", "upload")
    jobs.wall.at += 3600
    assert await sweep_of(jobs).orphans() == 0
    jobs.wall.at += 6 * 3600
    jobs.files.put("fresh0000000", "upload")
    assert await sweep_of(jobs).orphans() == 1
    assert set(jobs.files.held) == {kept, "fresh0000000"}


async def test_the_sweep_goes_on_after_a_failure(jobs: Jobs) -> None:
    clock = ManualClock()
    sweep = Sweep(jobs.database, jobs.files, jobs.policy, clock, jobs.wall, jobs.ends)
    job_id = await completed(jobs)
    jobs.files.down = True
    running = asyncio.create_task(sweep.run(60.0))
    await slept(clock)
    jobs.files.down = False
    jobs.wall.at += 60
    await clock.advance(60.0)
    await slept(clock)
    assert set(jobs.files.held[job_id]) == {"result"}
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
