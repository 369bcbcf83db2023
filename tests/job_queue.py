"""A table of jobs in memory, and a worker over stages without a model."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from model_core.errors import StageUnavailable
from model_core.tasks import cancel_and_wait
from service.clock import MonotonicClock
from service.jobs.files.artifacts import ArtifactFiles
from service.jobs.files.destinations import Destinations
from service.jobs.files.folder import FolderArtifacts
from service.jobs.job import Destination, Job, JobError, JobStatus, Presentation
from service.jobs.work import Also, Beat, Checkpoint, ClaimedJob, Finished, LeaseLost, UploadRef
from service.jobs.worker.attempt import JobAttempt, WorkPolicy
from service.jobs.worker.quality import JobQuality
from service.jobs.worker.worker import JobWorker
from service.orders import Doorway, Mode, VideoRequest
from tests.core import Core

FILE = Doorway(Mode.FILE)
POLICY = WorkPolicy(
    lease_s=60.0, beat_s=0.005, look_s=0.005, checkpoint_s=0.0, tries=3, first_pause_s=0.001, longest_pause_s=0.002, give_back_s=0.02
)


@dataclass(slots=True)
class Row:
    """A job in the table."""

    claim: ClaimedJob
    status: JobStatus = JobStatus.QUEUED
    cancelling: bool = False
    frames_done: int = 0
    finished: Finished | None = None
    error: JobError | None = None
    released: int = 0


@dataclass(slots=True)
class FakeQueue:
    """Obeys `JobQueue`. `away` makes so many calls fail first, those of `deaf` all of them."""

    rows: dict[str, Row] = field(default_factory=dict)
    away: int = 0
    deaf: set[str] = field(default_factory=set)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    billed: list[str] = field(default_factory=list)
    ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def add(
        self,
        request: VideoRequest,
        *,
        tenant: str = "",
        presentation: Presentation = Presentation(),  # noqa: B008 - frozen
        upload: UploadRef | None = None,
        destination: Destination | None = None,
        doorway: Doorway = FILE,
    ) -> str:
        """A new job. Returns its id."""
        job_id = f"job{next(self.ids):09d}"
        job = Job(
            id=job_id, tenant=tenant, door="own", status=JobStatus.QUEUED, model="millrace-64", prompt=request.prompt,
            seconds=request.seconds, seed=request.seed or 0, steps=4, width=64, height=64, fps=24, created_at=0.0, updated_at=0.0,
            destination=destination,
        )  # fmt: skip
        claim = ClaimedJob(
            job=job, fence=0, lease_until=0.0, request=request, doorway=doorway, presentation=presentation, upload=upload
        )  # fmt: skip
        self.rows[job_id] = Row(claim)
        return job_id

    def take_away(self, job_id: str) -> None:
        """The worker's lease ends, and another one begins the job."""
        row = self.rows[job_id]
        row.claim = replace(row.claim, fence=row.claim.fence + 1)

    async def over(self, *job_ids: str, within_s: float = 60.0) -> list[Row]:
        """The rows, when the jobs are over."""
        async with asyncio.timeout(within_s):
            while not all(self.rows[job_id].status.over for job_id in job_ids):  # noqa: ASYNC110 - many writers
                await asyncio.sleep(0.002)
        return [self.rows[job_id] for job_id in job_ids]

    async def claim(self, worker: str, now: float, lease_s: float, most: int) -> list[ClaimedJob]:
        self._answer("claim")
        found = []
        for row in [row for row in self.rows.values() if row.status is JobStatus.QUEUED][:most]:
            job = replace(row.claim.job, status=JobStatus.RUNNING, attempts=row.claim.job.attempts + 1)
            row.claim = replace(row.claim, job=job, fence=row.claim.fence + 1)
            row.status = JobStatus.RUNNING
            found.append(row.claim)
        return found

    async def beat(self, job_id: str, fence: int, lease_s: float, frames_done: int) -> Beat:
        self._answer("beat")
        row = self.rows[job_id]
        if row.status is not JobStatus.RUNNING or row.claim.fence != fence:
            return Beat(lost=True)
        row.frames_done = max(row.frames_done, frames_done)
        return Beat(cancelling=row.cancelling)

    async def checkpoint(self, job_id: str, fence: int, checkpoint: Checkpoint) -> None:
        self._answer("checkpoint")
        row = self._held(job_id, fence)
        row.claim = replace(row.claim, checkpoint=checkpoint)
        self.checkpoints.append(checkpoint)

    async def complete(self, job_id: str, fence: int, finished: Finished, also: Also | None = None) -> None:
        self._answer("complete")
        row = self._held(job_id, fence)
        row.status, row.finished = JobStatus.COMPLETED, finished
        assert also is not None
        self.billed.append(job_id)

    async def fail(self, job_id: str, fence: int, error: JobError) -> None:
        self._answer("fail")
        row = self._held(job_id, fence)
        row.status, row.error = JobStatus.FAILED, error

    async def cancelled(self, job_id: str, fence: int) -> None:
        self._answer("cancelled")
        self._held(job_id, fence).status = JobStatus.CANCELLED

    async def release(self, job_id: str, fence: int, after_s: float = 0.0) -> None:
        self._answer("release")
        row = self._held(job_id, fence)
        row.status, row.released = JobStatus.QUEUED, row.released + 1

    def _answer(self, call: str) -> None:
        if call in self.deaf:
            raise StageUnavailable(f"the table is deaf to {call}")
        if self.away:
            self.away -= 1
            raise StageUnavailable("the table is away")

    def _held(self, job_id: str, fence: int) -> Row:
        row = self.rows[job_id]
        if row.status is not JobStatus.RUNNING or row.claim.fence != fence:
            raise LeaseLost(f"job {job_id} is another worker's")
        return row


@dataclass(frozen=True, slots=True)
class Works:
    """Workers, the table and the store, with what a test looks at."""

    core: Core
    queue: FakeQueue
    artifacts: FolderArtifacts
    files: ArtifactFiles
    folder: Path

    def worker(self, policy: WorkPolicy = POLICY, destinations: Destinations | None = None, quality: JobQuality | None = None) -> JobWorker:
        """One that does not run yet."""
        clock, encoding = MonotonicClock(), asyncio.Semaphore(1)

        def attempt(claimed: ClaimedJob) -> JobAttempt:
            return JobAttempt(
                claimed, self.core.intake, self.core.runner, self.artifacts, self.queue, destinations, policy, clock, encoding, quality
            )  # fmt: skip

        def has_room(beside: int) -> bool:
            return self.core.runner.has_room(self.core.stages.config.name, beside)

        return JobWorker("w", self.queue, has_room, attempt, self.files, lambda _claimed, _finished: _nothing, policy, clock, lambda: 0.0)

    @asynccontextmanager
    async def working(
        self, policy: WorkPolicy = POLICY, destinations: Destinations | None = None, quality: JobQuality | None = None
    ) -> AsyncGenerator[JobWorker, None]:
        """One that runs."""
        worker = self.worker(policy, destinations, quality)
        task = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            await worker.drain(grace_s=5.0)
            await cancel_and_wait(task)

    async def keys(self) -> list[str]:
        """Of all files in the store."""
        return [file.key for file in await self.artifacts.listed("jobs/")]

    async def video(self, job_id: str) -> bytes:
        """The file of a completed job, which is what its row says."""
        row = self.queue.rows[job_id]
        assert row.finished is not None
        data = await self.artifacts.read(f"jobs/{job_id}/result/{row.finished.sha256}/video.mp4")
        assert (len(data), hashlib.sha256(data).hexdigest()) == (row.finished.size_bytes, row.finished.sha256)
        return data


def _nothing(_: object) -> None:
    """Nothing else is written."""


def works(core: Core, folder: Path) -> Works:
    artifacts = FolderArtifacts(folder, lambda: 1000.0)
    return Works(core, FakeQueue(), artifacts, ArtifactFiles(artifacts), folder)
