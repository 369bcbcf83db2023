"""Workers on the real table, with ledger and outbox, on each kind of database: from what a caller asks to what it fetches."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from sqlalchemy import select

from model_core.tasks import cancel_and_wait
from service.clock import MonotonicClock
from service.database.engine import Database
from service.database.schema import LEDGER
from service.identity.principal import Principal
from service.jobs.desk.drafts import JobChecks
from service.jobs.desk.table_desk import TableDesk
from service.jobs.files.artifacts import ArtifactFiles
from service.jobs.files.folder import FolderArtifacts
from service.jobs.job import JobStatus, NewJob, Presentation, Variant, Webhook
from service.jobs.table.store import JobStore
from service.jobs.webhooks.notices import NoticeTable, NoticeWriter, Places
from service.jobs.work import ClaimedJob, JobPolicy
from service.jobs.worker.attempt import JobAttempt, WorkPolicy
from service.jobs.worker.billing import billing
from service.jobs.worker.worker import JobWorker
from service.ledger.table import LedgerTable
from service.orders import Doorway, Mode, VideoRequest
from tests.core import core
from tests.fakes import FakeDenoiser, FakeStages, eventually

ALICE = Principal(tenant="alice")
PATIENCE_S = 60.0
WORK = WorkPolicy(beat_s=0.02, look_s=0.02, checkpoint_s=0.0, first_pause_s=0.001, longest_pause_s=0.01)


def new(seed: int, **more: object) -> NewJob:
    request = VideoRequest(prompt="a red circle", seconds=2.0, seed=seed)
    return replace(NewJob(door="own", request=request, doorway=Doorway(Mode.FILE), presentation=Presentation(96, 64)), **more)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Server:
    desk: TableDesk
    worker: JobWorker
    notices: NoticeTable
    artifacts: FolderArtifacts
    stages: FakeStages


@asynccontextmanager
async def server(database: Database, folder: Path, gate: asyncio.Semaphore | None = None) -> AsyncGenerator[Server, None]:
    config = FakeStages().config
    stages = FakeStages(denoiser=FakeDenoiser(config, gate=gate))
    async with core(stages) as served:
        artifacts, clock, encoding = FolderArtifacts(folder, time.time), MonotonicClock(), asyncio.Semaphore(1)
        files, ended, ids = ArtifactFiles(artifacts), NoticeWriter({}, time.time).on_end, itertools.count(time.time_ns())
        store = JobStore(database, JobPolicy(), time.time, ended)

        def attempt(claimed: ClaimedJob) -> JobAttempt:
            return JobAttempt(claimed, served.intake, served.runner, artifacts, store, None, WORK, clock, encoding)

        has_room = partial(served.runner.has_room, config.name)
        worker = JobWorker("w", store, has_room, attempt, files, billing(LedgerTable(), time.time), WORK, clock, time.time)
        checks = JobChecks(served.intake.validator, JobPolicy(), lambda: 1)
        desk = TableDesk(
            database, files, checks, clock, time.time, lambda: f"{next(ids) % 36**10:012d}", on_end=ended, wake=worker.wake,
            cancelling=worker.look_at,
        )  # fmt: skip
        task = asyncio.create_task(worker.run())
        try:
            yield Server(desk, worker, NoticeTable(database, time.time), artifacts, stages)
        finally:
            await worker.drain(grace_s=5.0)
            await cancel_and_wait(task)
            await desk.aclose()


async def test_jobs_are_made_billed_and_reported_once_each(database: Database, tmp_path: Path) -> None:
    hook = Webhook("https://a.example/hook", "whsec_c2VjcmV0")
    async with server(database, tmp_path) as served, asyncio.timeout(PATIENCE_S):
        made = [(await served.desk.submit(ALICE, new(seed, webhook=hook))).id for seed in range(5)]
        jobs = [await served.desk.until_over(ALICE, job_id, PATIENCE_S) for job_id in made]
        assert [job.status for job in jobs] == [JobStatus.COMPLETED] * 5
        assert {(job.attempts, job.frames_done, job.usage is not None and job.usage.frames) for job in jobs} == {(1, 48, 48)}
        for job in jobs:
            content = await served.desk.content(ALICE, job.id)
            assert content.path is not None
            assert content.path.stat().st_size == job.size_bytes == content.size_bytes
            assert (await served.desk.content(ALICE, job.id, Variant.THUMBNAIL)).media_type == "image/webp"
        await eventually(lambda: served.worker.working == 0)
        assert len(await served.artifacts.listed("jobs/")) == 3 * 5
        notices = await served.notices.take(Places(10, 10), 60.0)
        assert sorted(notice.id for notice in notices) == sorted(f"webhook-{job_id}-completed" for job_id in made)
    rows = await database.run(lambda connection: connection.execute(select(LEDGER)).all(), write=False)
    assert sorted(row.source for row in rows) == sorted(made)
    assert {(row.tenant, row.door, row.kind, row.frames, row.video_seconds) for row in rows} == {("alice", "own", "job", 48, 2.0)}


async def test_a_job_that_is_cancelled_or_deleted_leaves_nothing_and_bills_nothing(database: Database, tmp_path: Path) -> None:
    gate = asyncio.Semaphore(2)
    async with server(database, tmp_path, gate) as served, asyncio.timeout(PATIENCE_S):
        first, second = [(await served.desk.submit(ALICE, new(seed))).id for seed in range(2)]
        await eventually(lambda: served.worker.working == 2)
        await served.desk.cancel(ALICE, first)
        assert (await served.desk.until_over(ALICE, first, PATIENCE_S)).status is JobStatus.CANCELLED
        await served.desk.delete(ALICE, second)
        await eventually(lambda: served.worker.working == 0 and served.stages.open_streams == 0)
        assert await served.artifacts.listed("jobs/") == []
    assert await database.run(lambda connection: connection.execute(select(LEDGER)).all(), write=False) == []


async def test_a_job_goes_on_at_the_next_server(database: Database, tmp_path: Path) -> None:
    gate = asyncio.Semaphore(3)
    async with server(database, tmp_path, gate) as served, asyncio.timeout(PATIENCE_S):
        job_id = (await served.desk.submit(ALICE, new(7))).id
        while (await served.desk.get(ALICE, job_id)).frames_done == 0:  # noqa: ASYNC110 - the table has no event
            await asyncio.sleep(0.01)
        gate.release()
    async with server(database, tmp_path) as served, asyncio.timeout(PATIENCE_S):
        whole = (await served.desk.submit(ALICE, new(7))).id
        jobs = [await served.desk.until_over(ALICE, each, PATIENCE_S) for each in (job_id, whole)]
        assert [job.status for job in jobs] == [JobStatus.COMPLETED] * 2
        assert jobs[0].sha256 == jobs[1].sha256
        assert jobs[0].usage is not None
        assert jobs[0].usage.frames == 48
