"""What callers do to their jobs, on each kind of database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace

import pytest
from sqlalchemy import Connection, func, select

from model_core.errors import InvalidRequest, StageUnavailable
from service.database.engine import Database
from service.database.schema import JOBS, OUTBOX
from service.identity.principal import Principal, QuotaExceeded
from service.jobs.desk.batches import Batch, read_rows
from service.jobs.job import IdempotencyConflict, JobError, JobNotFound, JobNotReady, JobQuery, JobStatus, NewJob, Variant
from tests.jobs import ALICE, BOB, FINISHED, LEASE_S, Jobs, new_job

PNG = ("image", b"\x89PNG\r\n\x1a\n" + bytes(32))


class Quotas:
    """A `JobQuotas` that allows so many seconds in all, and writes a row for each job, to see that the row goes when it should."""

    def __init__(self, seconds: float) -> None:
        self.left = seconds

    def reserve(self, connection: Connection, principal: Principal, seconds: Mapping[str, float]) -> None:
        for job_id, asked in seconds.items():
            connection.execute(OUTBOX.insert().values(id=job_id, kind="reserved"))
            self.left -= asked
            if self.left < 0:
                raise QuotaExceeded("budget_seconds is spent", limit="budget_seconds", allowed=10, used=10)


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database)


async def rows(database: Database) -> tuple[int, int]:
    """How many jobs and how many rows of the outbox there are."""

    def counted(connection: Connection) -> tuple[int, int]:
        jobs, outbox = (connection.execute(select(func.count()).select_from(table)).scalar_one() for table in (JOBS, OUTBOX))
        return jobs, outbox

    return await database.run(counted, write=False)


async def test_a_new_job_is_queued_with_everything_filled_in(jobs: Jobs) -> None:
    job = await jobs.desk.submit(ALICE, new_job("a red ball", labels={"team": "red"}, shown={"size": "1280x720"}))
    assert job == await jobs.desk.get(ALICE, job.id)
    assert (job.status, job.tenant, job.door, job.model) == (JobStatus.QUEUED, "alice", "openai", "millrace-64")
    assert (job.seconds, job.fps, job.frames_total, job.steps, job.width, job.height) == (4.0, 24, 96, 4, 64, 64)
    assert job.seed == 2**64 - 1
    assert (job.created_at, job.started_at, job.expires_at) == (jobs.wall.at, None, None)
    assert (job.labels, job.shown) == ({"team": "red"}, {"size": "1280x720"})
    assert jobs.woken == 1


async def test_an_idempotency_key_makes_one_job(jobs: Jobs) -> None:
    new = new_job(idempotency_key="order-7", footage=PNG)
    first = await jobs.desk.submit(ALICE, new)
    jobs.wall.at += 60
    assert await jobs.desk.submit(ALICE, new) == first
    assert set(jobs.files.held) == {first.id}
    blue, plain = new_job("a blue ball", idempotency_key="order-7", footage=PNG), new_job(idempotency_key="order-7")
    for other in (blue, plain, replace(new, labels={"a": "b"})):
        with pytest.raises(IdempotencyConflict, match="used for another request"):
            await jobs.desk.submit(ALICE, other)
    assert set(jobs.files.held) == {first.id}
    others = [await jobs.desk.submit(BOB, new), await jobs.desk.submit(ALICE, replace(new, door="runway"))]
    assert len({first.id, *(job.id for job in others)}) == 3


async def test_an_idempotency_key_makes_one_job_also_for_calls_at_once(jobs: Jobs) -> None:
    made = await asyncio.gather(*(jobs.desk.submit(ALICE, new_job(idempotency_key="k", footage=PNG)) for _ in range(8)))
    assert len({job.id for job in made}) == 1
    assert set(jobs.files.held) == {made[0].id}
    assert (await rows(jobs.database))[0] == 1
    assert jobs.woken == 1


async def test_what_is_wrong_is_said_at_once_by_the_callers_names(jobs: Jobs) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await jobs.desk.submit(ALICE, new_job("", seconds=1e9, steps=99))
    assert {violation.field for violation in caught.value.violations} == {"prompt", "seconds", "steps"}
    assert await rows(jobs.database) == (0, 0)


async def test_over_quota_nothing_is_left_behind(database: Database) -> None:
    jobs = Jobs(database, quotas=Quotas(10.0))
    for _ in range(2):
        await jobs.desk.submit(ALICE, new_job())
    with pytest.raises(QuotaExceeded):
        await jobs.desk.submit(ALICE, new_job(footage=PNG))
    assert await rows(database) == (2, 2)
    assert jobs.files.held == {}


async def test_a_repeated_request_is_reserved_once(database: Database) -> None:
    jobs = Jobs(database, quotas=Quotas(5.0))
    first = await jobs.desk.submit(ALICE, new_job(idempotency_key="k"))
    assert await jobs.desk.submit(ALICE, new_job(idempotency_key="k")) == first
    assert await rows(database) == (1, 1)


async def test_an_upload_that_cannot_be_stored_makes_no_job(jobs: Jobs) -> None:
    jobs.files.down = True
    with pytest.raises(StageUnavailable):
        await jobs.desk.submit(ALICE, new_job(footage=PNG))
    assert await rows(jobs.database) == (0, 0)


async def test_what_callers_change_is_audited_in_the_same_transaction(database: Database) -> None:
    noted: list[tuple[str, str, str]] = []

    def audit(connection: Connection, principal: Principal, operation: str, job_id: str) -> None:
        noted.append((principal.tenant, operation, job_id))

    jobs = Jobs(database, audit=audit)
    job = await jobs.desk.submit(ALICE, new_job(idempotency_key="k"))
    await jobs.desk.submit(ALICE, new_job(idempotency_key="k"))
    await jobs.desk.cancel(ALICE, job.id)
    await jobs.desk.delete(ALICE, job.id)
    assert noted == [("alice", operation, job.id) for operation in ("job.submit", "job.cancel", "job.delete")]


async def test_other_tenants_and_unknown_ids_are_answered_alike(jobs: Jobs) -> None:
    mine = (await jobs.desk.submit(ALICE, new_job())).id

    async def said(job_id: str) -> list[str]:
        found = []
        for call in (
            jobs.desk.get(BOB, job_id),
            jobs.desk.cancel(BOB, job_id),
            jobs.desk.delete(BOB, job_id),
            jobs.desk.content(BOB, job_id),
            jobs.desk.until_over(BOB, job_id, 60),
            jobs.desk.list(BOB, JobQuery(after=job_id)),
        ):
            with pytest.raises(JobNotFound) as caught:
                await call
            found.append(str(caught.value).replace(job_id, "ID"))
        return found

    assert await said(mine) == await said("j99999999999")
    assert (await jobs.desk.list(BOB, JobQuery())).jobs == ()
    assert (await jobs.desk.get(ALICE, mine)).status is JobStatus.QUEUED


async def test_a_queued_job_that_is_cancelled_ends_at_once_and_others_stay_as_they_are(jobs: Jobs) -> None:
    job = await jobs.desk.submit(ALICE, new_job())
    cancelled = await jobs.desk.cancel(ALICE, job.id)
    assert (cancelled.status, cancelled.ended_at) == (JobStatus.CANCELLED, jobs.wall.at)
    assert jobs.ends.statuses == ["cancelled"]
    jobs.wall.at += 1
    assert await jobs.desk.cancel(ALICE, job.id) == cancelled
    assert await jobs.store.claim("worker", jobs.wall(), LEASE_S, 5) == []
    done, fence = await jobs.running()
    await jobs.store.complete(done, fence, FINISHED)
    assert (await jobs.desk.cancel(ALICE, done)).status is JobStatus.COMPLETED
    assert jobs.ends.statuses == ["cancelled", "completed"]


async def test_a_worker_in_this_process_hears_of_a_cancel_at_once(database: Database) -> None:
    heard: list[str] = []
    jobs = Jobs(database, cancelling=heard.append)
    queued = await jobs.desk.submit(BOB, new_job())
    await jobs.desk.cancel(BOB, queued.id)
    first, _ = await jobs.running()
    await jobs.desk.cancel(ALICE, first)
    second, _ = await jobs.running()
    await jobs.desk.delete(ALICE, second)
    assert heard == [first, second]


async def test_a_deleted_job_is_not_found_and_ends(jobs: Jobs) -> None:
    queued = (await jobs.desk.submit(ALICE, new_job(idempotency_key="k"))).id
    await jobs.desk.delete(ALICE, queued)
    again = await jobs.desk.submit(ALICE, new_job(idempotency_key="k"))
    assert again.id != queued  # its key is free again
    (begun,) = await jobs.store.claim("worker", jobs.wall(), LEASE_S, 1)
    await jobs.desk.delete(ALICE, again.id)
    assert (await jobs.store.beat(again.id, begun.fence, LEASE_S, 1)).cancelling
    for job_id in (queued, again.id):
        with pytest.raises(JobNotFound):
            await jobs.desk.get(ALICE, job_id)
        with pytest.raises(JobNotFound):
            await jobs.desk.delete(ALICE, job_id)
    assert (await jobs.desk.list(ALICE, JobQuery())).jobs == ()


async def test_pages_follow_each_other_in_both_directions(jobs: Jobs) -> None:
    made = []
    for number in range(7):
        made.append((await jobs.desk.submit(ALICE, new_job(f"{number}"))).id)
        jobs.wall.at += number % 2  # some of them are made at once
    await jobs.desk.submit(BOB, new_job())
    for ascending, order in ((True, made), (False, made[::-1])):
        seen: list[str] = []
        while True:
            page = await jobs.desk.list(ALICE, JobQuery(after=seen[-1] if seen else "", limit=3, ascending=ascending))
            seen += [job.id for job in page.jobs]
            if not page.more:
                break
            assert len(page.jobs) == 3
        assert seen == order
    await jobs.desk.delete(ALICE, made[3])
    after = await jobs.desk.list(ALICE, JobQuery(after=made[3], ascending=True))
    assert [job.id for job in after.jobs] == made[4:]


async def test_lists_are_filtered(jobs: Jobs) -> None:
    start = jobs.wall.at
    first = (await jobs.desk.submit(ALICE, new_job())).id
    jobs.wall.at += 10
    second = (await jobs.desk.submit(ALICE, new_job(door="runway"))).id
    jobs.wall.at += 10
    third = (await jobs.desk.submit(ALICE, new_job())).id
    await jobs.desk.cancel(ALICE, third)

    async def listed(**query: object) -> list[str]:
        return [job.id for job in (await jobs.desk.list(ALICE, JobQuery(ascending=True, **query))).jobs]  # type: ignore[arg-type]

    assert await listed() == [first, second, third]
    assert await listed(door="runway") == [second]
    assert await listed(statuses=frozenset({JobStatus.QUEUED})) == [first, second]
    assert await listed(statuses=frozenset({JobStatus.CANCELLED, JobStatus.FAILED})) == [third]
    assert await listed(since=start + 5) == [second, third]
    assert await listed(until=start + 10) == [first, second]


async def test_content_is_for_completed_jobs(jobs: Jobs) -> None:
    job_id, fence = await jobs.running()
    with pytest.raises(JobNotReady, match="must be completed; it is running"):
        await jobs.desk.content(ALICE, job_id)
    jobs.files.put(job_id, "result")
    await jobs.store.complete(job_id, fence, FINISHED)
    content = await jobs.desk.content(ALICE, job_id, Variant.THUMBNAIL)
    assert content.url == f"https://files.example/{job_id}/thumbnail"
    failed, fence = await jobs.running()
    await jobs.store.fail(failed, fence, JobError("internal", "broken"))
    with pytest.raises(JobNotReady, match="it is failed"):
        await jobs.desk.content(ALICE, failed)


async def test_whoever_waits_for_the_end_learns_of_it(jobs: Jobs) -> None:
    job_id, fence = await jobs.running()
    assert (await jobs.desk.until_over(ALICE, job_id, 0.0)).status is JobStatus.RUNNING
    waiting = asyncio.create_task(jobs.desk.until_over(ALICE, job_id, 3600.0))
    await asyncio.sleep(0)
    await jobs.store.complete(job_id, fence, FINISHED)
    assert (await waiting).status is JobStatus.COMPLETED
    assert (await jobs.desk.until_over(ALICE, job_id, 3600.0)).status is JobStatus.COMPLETED


async def test_a_batch_is_queued_wholly_and_in_order(jobs: Jobs) -> None:
    asked = [new_job(f"ball {number}") for number in range(5)]
    batch = await jobs.desk.submit_batch(ALICE, asked)
    assert jobs.woken == 1
    page = await jobs.desk.list(ALICE, JobQuery(batch=batch, ascending=True))
    assert [(job.prompt, job.batch_row) for job in page.jobs] == [(f"ball {number}", number) for number in range(5)]
    (first,) = await jobs.store.claim("worker", jobs.wall(), LEASE_S, 1)
    assert first.job.prompt == "ball 0"
    await jobs.store.complete(first.job.id, first.fence, FINISHED)
    assert await jobs.desk.batch(ALICE, batch) == Batch(batch, jobs.wall.at, {JobStatus.QUEUED: 4, JobStatus.COMPLETED: 1})
    lines = [json.loads(line) async for line in jobs.desk.manifest(ALICE, batch)]
    assert [(line["row"], line["status"]) for line in lines] == [(0, "completed"), *((row, "queued") for row in range(1, 5))]
    assert lines[0]["sha256"] == FINISHED.sha256
    with pytest.raises(JobNotFound, match="no batch"):
        await jobs.desk.batch(BOB, batch)
    assert [line async for line in jobs.desk.manifest(BOB, batch)] == []


async def test_labels_of_a_row_may_be_any_text_of_json(jobs: Jobs) -> None:
    """No database has NUL or half a surrogate pair in a text."""
    rows = read_rows(rb'{"prompt": "a ball", "labels": {"nul": "\u0000", "half": "\ud800"}}', "own")
    batch = await jobs.desk.submit_batch(ALICE, rows)
    (job,) = (await jobs.desk.list(ALICE, JobQuery(batch=batch))).jobs
    assert job.labels == {"nul": "\0", "half": "\ud800"}
    assert len([line async for line in jobs.desk.manifest(ALICE, batch)]) == 1


async def test_a_batch_with_a_bad_row_makes_no_job(database: Database) -> None:
    jobs = Jobs(database, quotas=Quotas(10.0))
    with pytest.raises(InvalidRequest, match="prompt"):
        await jobs.desk.submit_batch(ALICE, [new_job(), new_job("")])
    with pytest.raises(QuotaExceeded):
        await jobs.desk.submit_batch(ALICE, [new_job(), new_job(footage=PNG), new_job()])
    assert await rows(database) == (0, 0)
    assert jobs.files.held == {}


async def test_an_idempotency_key_makes_one_batch(jobs: Jobs) -> None:
    asked: list[NewJob] = [new_job("a", footage=PNG), new_job("b")]
    made = await asyncio.gather(*(jobs.desk.submit_batch(ALICE, asked, "nightly") for _ in range(4)))
    assert len(set(made)) == 1
    assert (await rows(jobs.database))[0] == 2
    assert len(jobs.files.held) == 1
    with pytest.raises(IdempotencyConflict):
        await jobs.desk.submit_batch(ALICE, asked[:1], "nightly")
