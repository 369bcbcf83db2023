"""What workers do to jobs, on each kind of database."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import Connection, update

from model_core.errors import FieldViolation
from service.database.engine import Database
from service.database.schema import JOBS, OUTBOX
from service.jobs.job import JobError, JobStatus, Presentation, Tier, Webhook
from service.jobs.work import Beat, Checkpoint, LeaseLost
from tests.jobs import ALICE, BOB, FINISHED, LEASE_S, POLICY, Jobs, new_job


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database)


async def claimed(jobs: Jobs, most: int = 1) -> list[str]:
    return [each.job.id for each in await jobs.store.claim("worker", jobs.wall(), LEASE_S, most)]


async def test_a_worker_gets_what_it_needs(jobs: Jobs) -> None:
    webhook = Webhook("https://hooks.example/x", "whsec_planted", {"order": "7"})
    made = await jobs.desk.submit(
        ALICE,
        new_job(
            "a red ball", seconds=2.5, seed=2**63 + 7, steps=6, footage=("image", b"\x89PNG\r\n\x1a\n" + bytes(32)), webhook=webhook,
            presentation=Presentation(1280, 720), labels={"a": "b"}, shown={"alias": "sora-2"}, tier=Tier.FLEX,
        ),
    )  # fmt: skip
    jobs.wall.at += 5
    (begun,) = await jobs.store.claim("worker-1", jobs.wall(), LEASE_S, 5)
    assert (begun.fence, begun.lease_until, begun.checkpoint) == (1, jobs.wall.at + LEASE_S, None)
    assert begun.webhook == webhook
    assert "planted" not in repr(begun)
    assert begun.presentation == Presentation(1280, 720)
    assert begun.upload is not None
    assert (begun.upload.kind, begun.upload.key) == ("image", f"jobs/{made.id}/0/upload")
    assert (begun.request.prompt, begun.request.seconds, begun.request.seed, begun.request.steps) == ("a red ball", 2.5, 2**63 + 7, 6)
    assert begun.job == replace(made, status=JobStatus.RUNNING, started_at=jobs.wall.at, updated_at=jobs.wall.at, attempts=1)


async def test_the_order_is_tier_then_age(jobs: Jobs) -> None:
    made = {}
    for name, tier in (("flex", Tier.FLEX), ("old", Tier.DEFAULT), ("new", Tier.DEFAULT), ("first", Tier.PRIORITY)):
        made[name] = (await jobs.desk.submit(ALICE, new_job(name, tier=tier))).id
        jobs.wall.at += 1
    assert await claimed(jobs, 3) == [made["first"], made["old"], made["new"]]
    assert await claimed(jobs, 3) == [made["flex"]]
    assert await claimed(jobs, 3) == []


async def test_a_tenant_with_many_jobs_starves_nobody(jobs: Jobs) -> None:
    many = [(await jobs.desk.submit(ALICE, new_job(f"{n}"))).id for n in range(8)]
    assert await claimed(jobs, 2) == many[:2]
    jobs.wall.at += 10
    late = [(await jobs.desk.submit(BOB, new_job(f"{n}"))).id for n in range(3)]
    assert await claimed(jobs, 1) == late[:1]
    assert await claimed(jobs, 4) == [late[1], late[2], many[2], many[3]]
    assert await claimed(jobs, 100) == many[4:]


async def test_places_that_a_tenant_cannot_fill_go_to_others(jobs: Jobs) -> None:
    few = [(await jobs.desk.submit(BOB, new_job("only"))).id]
    many = [(await jobs.desk.submit(ALICE, new_job(f"{n}"))).id for n in range(5)]
    assert sorted(await claimed(jobs, 6)) == sorted(few + many)


async def test_workers_that_claim_at_once_get_different_jobs(jobs: Jobs) -> None:
    made = {(await jobs.desk.submit(ALICE, new_job(f"{n}"))).id for n in range(20)}
    got = await asyncio.gather(*(claimed(jobs, 3) for _ in range(10)))
    flat = [job_id for some in got for job_id in some]
    assert len(flat) == len(set(flat))
    assert {*flat, *(await claimed(jobs, 20))} == made


async def test_a_lease_that_runs_out_gives_the_job_to_another_worker_with_its_checkpoint(jobs: Jobs) -> None:
    job_id, fence = await jobs.running()
    point = Checkpoint(("part-0", "part-1"), "record-1", 32)
    await jobs.store.checkpoint(job_id, fence, point)
    jobs.wall.at += LEASE_S + 1
    (again,) = await jobs.store.claim("worker-2", jobs.wall(), LEASE_S, 1)
    assert (again.job.id, again.fence, again.checkpoint, again.job.attempts) == (job_id, fence + 1, point, 2)
    assert again.job.frames_done == 32


async def test_a_beat_prolongs_the_lease(jobs: Jobs) -> None:
    job_id, fence = await jobs.running()
    for _ in range(3):
        jobs.wall.at += LEASE_S - 1
        assert await jobs.store.beat(job_id, fence, LEASE_S, 8) == Beat()
        assert await claimed(jobs) == []


async def test_a_worker_that_lost_its_lease_writes_nothing(jobs: Jobs) -> None:
    job_id, old = await jobs.running()
    jobs.wall.at += LEASE_S + 1
    (again,) = await jobs.store.claim("worker-2", jobs.wall(), LEASE_S, 1)
    before = await jobs.columns(job_id)
    wrote = []

    def also(connection: Connection) -> None:
        wrote.append(1)

    assert await jobs.store.beat(job_id, old, LEASE_S, 90) == Beat(lost=True)
    for write in (
        jobs.store.checkpoint(job_id, old, Checkpoint((), "stale", 90)),
        jobs.store.complete(job_id, old, FINISHED, also),
        jobs.store.fail(job_id, old, JobError("internal", "stale"), also),
        jobs.store.cancelled(job_id, old, also),
    ):
        with pytest.raises(LeaseLost, match=job_id):
            await write
    await jobs.store.release(job_id, old)
    assert await jobs.columns(job_id) == before
    assert (wrote, jobs.ends.seen) == ([], [])
    await jobs.store.complete(job_id, again.fence, FINISHED)


async def test_a_job_that_went_back_to_the_queue_takes_no_writes_either(jobs: Jobs) -> None:
    job_id, fence = await jobs.running()
    await jobs.store.release(job_id, fence)
    assert await jobs.store.beat(job_id, fence, LEASE_S, 1) == Beat(lost=True)
    with pytest.raises(LeaseLost):
        await jobs.store.complete(job_id, fence, FINISHED)
    assert (await jobs.desk.get(ALICE, job_id)).status is JobStatus.QUEUED


async def test_progress_does_not_go_back(jobs: Jobs) -> None:
    job_id, fence = await jobs.running()
    seen = []
    for frames in (8, 24, 16, 0):
        await jobs.store.beat(job_id, fence, LEASE_S, frames)
        seen.append((await jobs.desk.get(ALICE, job_id)).frames_done)
    await jobs.store.checkpoint(job_id, fence, Checkpoint((), "r", 8))
    seen.append((await jobs.desk.get(ALICE, job_id)).frames_done)
    assert seen == [8, 24, 24, 24, 24]


async def test_a_completed_job_shows_its_file_and_tells_who_waits_in_the_same_transaction(jobs: Jobs) -> None:
    job_id, fence = await jobs.running(labels={"a": "b"})

    def also(connection: Connection) -> None:
        connection.execute(OUTBOX.insert().values(id=job_id, kind="usage"))

    jobs.wall.at += 9
    await jobs.store.complete(job_id, fence, FINISHED, also)
    job = await jobs.desk.get(ALICE, job_id)
    assert (job.status, job.progress, job.size_bytes, job.sha256) == (JobStatus.COMPLETED, 1.0, 1234, "ab" * 32)
    assert job.usage == FINISHED.usage
    assert (job.ended_at, job.expires_at) == (jobs.wall.at, jobs.wall.at + POLICY.ttl_s)
    assert job.frames_done == job.frames_total == 96
    (ended,) = jobs.ends.seen
    assert ended.job == job


async def test_an_end_and_what_goes_with_it_are_written_together_or_not_at_all(jobs: Jobs) -> None:
    job_id, fence = await jobs.running()

    def also(connection: Connection) -> None:
        raise RuntimeError("the ledger is broken")

    with pytest.raises(RuntimeError, match="ledger"):
        await jobs.store.complete(job_id, fence, FINISHED, also)
    assert (await jobs.desk.get(ALICE, job_id)).status is JobStatus.RUNNING
    await jobs.store.complete(job_id, fence, FINISHED)


async def test_an_end_that_is_reported_twice_counts_once(jobs: Jobs) -> None:
    """As after a connection that broke when the commit had arrived."""
    job_id, fence = await jobs.running()
    wrote = []

    def also(connection: Connection) -> None:
        wrote.append(1)

    await jobs.store.complete(job_id, fence, FINISHED, also)
    await jobs.store.complete(job_id, fence, FINISHED, also)
    assert (len(wrote), jobs.ends.statuses) == (1, ["completed"])
    with pytest.raises(LeaseLost):
        await jobs.store.fail(job_id, fence, JobError("internal", "too late"))


async def test_a_failure_keeps_its_reasons(jobs: Jobs) -> None:
    job_id, fence = await jobs.running()
    error = JobError("invalid", "image: cannot be read", (FieldViolation("image", "cannot be read"),))
    await jobs.store.fail(job_id, fence, error)
    job = await jobs.desk.get(ALICE, job_id)
    assert (job.status, job.error) == (JobStatus.FAILED, error)


async def test_a_running_job_that_is_cancelled_ends_when_its_worker_says_so(jobs: Jobs) -> None:
    job_id, fence = await jobs.running()
    asked = await jobs.desk.cancel(ALICE, job_id)
    assert (asked.status, asked.cancelling) == (JobStatus.RUNNING, True)
    assert await jobs.store.beat(job_id, fence, LEASE_S, 8) == Beat(cancelling=True)
    await jobs.store.cancelled(job_id, fence)
    job = await jobs.desk.get(ALICE, job_id)
    assert (job.status, job.cancelling) == (JobStatus.CANCELLED, False)


async def test_a_job_that_is_to_be_cancelled_ends_with_its_worker(jobs: Jobs) -> None:
    released, fence = await jobs.running()
    await jobs.desk.cancel(ALICE, released)
    await jobs.store.release(released, fence)
    dead, _ = await jobs.running()
    await jobs.desk.cancel(ALICE, dead)
    jobs.wall.at += LEASE_S + 1
    assert await claimed(jobs) == []
    assert {(await jobs.desk.get(ALICE, job_id)).status for job_id in (released, dead)} == {JobStatus.CANCELLED}


async def test_a_released_job_is_claimed_again_not_before_its_time(jobs: Jobs) -> None:
    job_id, fence = await jobs.running()
    await jobs.store.release(job_id, fence, after_s=10.0)
    assert await claimed(jobs) == []
    jobs.wall.at += 10
    assert await claimed(jobs) == [job_id]


async def test_a_released_job_is_not_counted_as_lost(jobs: Jobs) -> None:
    job_id, fence = await jobs.running()
    for _ in range(2 * POLICY.max_lost):
        await jobs.store.release(job_id, fence)
        (again,) = await jobs.store.claim("worker", jobs.wall(), LEASE_S, 1)
        fence = again.fence
    assert (await jobs.columns(job_id))["lost"] == 0


async def test_a_job_over_which_workers_die_without_progress_fails(jobs: Jobs) -> None:
    job_id, fence = await jobs.running()
    for _ in range(POLICY.max_lost - 1):
        jobs.wall.at += LEASE_S + 1
        (again,) = await jobs.store.claim("worker", jobs.wall(), LEASE_S, 1)
        fence = again.fence
    await jobs.store.checkpoint(job_id, fence, Checkpoint(("p",), "r", 16))  # progress: it may go on
    for _ in range(POLICY.max_lost - 1):
        jobs.wall.at += LEASE_S + 1
        assert await claimed(jobs) == [job_id]
    jobs.wall.at += LEASE_S + 1
    assert await claimed(jobs) == []
    job = await jobs.desk.get(ALICE, job_id)
    assert job.status is JobStatus.FAILED
    assert job.error == JobError("internal", "3 workers were lost over it, one after the other, and none of them came further")
    assert jobs.ends.statuses == ["failed"]


async def test_a_row_that_cannot_be_read_does_not_keep_others_waiting(jobs: Jobs) -> None:
    broken = (await jobs.desk.submit(ALICE, new_job("broken"))).id
    jobs.wall.at += 1
    sound = (await jobs.desk.submit(ALICE, new_job("sound"))).id

    def damage(connection: Connection) -> None:
        connection.execute(update(JOBS).where(JOBS.c.id == broken).values(request="{}"))

    await jobs.database.run(damage)
    assert await claimed(jobs, 2) == [sound]
    job = await jobs.desk.get(ALICE, broken)
    assert (job.status, job.error) == (JobStatus.FAILED, JobError("internal", "what was asked for can no longer be read"))


async def test_jobs_are_read_whoever_they_belong_to(jobs: Jobs) -> None:
    one, other = (await jobs.desk.submit(ALICE, new_job())).id, (await jobs.desk.submit(BOB, new_job())).id
    assert set(await jobs.store.read([one, other, "j99999999999"])) == {one, other}
