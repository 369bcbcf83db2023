"""Jobs in memory, which a test moves on by hand. It obeys `service.jobs.desk.interface.JobDesk`."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from model_core.quality.values import Quality
from service.events import Usage
from service.identity.principal import Principal
from service.intake import Intake
from service.jobs.job import (
    Content,
    IdempotencyConflict,
    Job,
    JobError,
    JobNotFound,
    JobNotReady,
    JobPage,
    JobQuery,
    JobStatus,
    NewJob,
    Variant,
)  # fmt: skip

NOW = 1_700_000_000.0
MEDIA_TYPES = {Variant.VIDEO: "video/mp4", Variant.THUMBNAIL: "image/webp", Variant.SPRITESHEET: "image/jpeg"}


class FakeJobDesk:
    """A desk without workers.

    Args:
        intake: checks what is submitted.
        folder: for finished files.

    Attributes:
        submitted: everything that was put into the queue, oldest first.
        now: the time, which moves when a test moves it.
        error: raised by the next call of any method, once.
        links: content is answered as a URL below it, in place of a path.
    """

    def __init__(self, intake: Intake, folder: Path) -> None:
        self._intake = intake
        self._folder = folder
        self._jobs: dict[str, Job] = {}
        self._keys: dict[tuple[str, str, str], tuple[str, str]] = {}
        self.submitted: list[NewJob] = []
        self.now = NOW
        self.error: Exception | None = None
        self.links = ""

    # --- What a test does in place of a worker.

    def start(self, job_id: str, frames_done: int = 0) -> Job:
        job = self._jobs[job_id]
        return self._set(replace(job, status=JobStatus.RUNNING, started_at=self.now, frames_done=frames_done, attempts=job.attempts + 1))

    def complete(self, job_id: str, content: bytes = b"an MP4") -> Job:
        job = self._jobs[job_id]
        for variant in Variant:
            self._path(job_id, variant).write_bytes(content if variant is Variant.VIDEO else f"{variant.value}".encode())
        digest, usage = hashlib.sha256(content).hexdigest(), Usage(fps=job.fps, frames=job.frames_total, denoise_s=0.5, decode_s=0.25)
        return self._set(
            replace(
                job, status=JobStatus.COMPLETED, ended_at=self.now, expires_at=self.now + 3600, frames_done=job.frames_total,
                size_bytes=len(content), sha256=digest, usage=usage,
            )
        )  # fmt: skip

    def measure(self, job_id: str, quality: Quality) -> Job:
        return self._set(replace(self._jobs[job_id], quality=quality))

    def fail(self, job_id: str, error: JobError) -> Job:
        return self._set(replace(self._jobs[job_id], status=JobStatus.FAILED, ended_at=self.now, error=error))

    def expire(self, job_id: str) -> Job:
        return self._set(replace(self._jobs[job_id], status=JobStatus.EXPIRED))

    def adopt(self, job_id: str, door: str) -> Job:
        """As if it had come in by another door."""
        return self._set(replace(self._jobs[job_id], door=door))

    def job(self, job_id: str) -> Job:
        return self._jobs[job_id]

    @property
    def all(self) -> tuple[Job, ...]:
        """Oldest first."""
        return tuple(self._jobs.values())

    @property
    def only(self) -> Job:
        """The one job that there is."""
        [job] = self._jobs.values()
        return job

    # --- What a door asks.

    async def submit(self, principal: Principal, new: NewJob) -> Job:
        self._fail()
        order = self._intake.order(new.request, new.doorway)
        principal.check_model(order.config.name)
        digest = hashlib.sha256(repr(new).encode()).hexdigest()
        key = (principal.tenant, new.door, new.idempotency_key)
        if new.idempotency_key and key in self._keys:
            known, job_id = self._keys[key]
            if known != digest:
                raise IdempotencyConflict(f"the idempotency key {new.idempotency_key} was used for another request")
            return self._jobs[job_id]
        config, made = order.config, order.request
        frames = made.num_frames or 0
        job = Job(
            id=f"job{len(self.submitted):09d}", tenant=principal.tenant, door=new.door, status=JobStatus.QUEUED, model=config.name,
            prompt=made.prompt, seconds=frames / config.fps, seed=made.seed, steps=made.num_steps,
            width=new.presentation.width or config.width, height=new.presentation.height or config.height, fps=config.fps,
            created_at=self.now, updated_at=self.now, frames_total=frames, parent=new.parent, tier=new.tier, shown=dict(new.shown),
            labels=dict(new.labels), destination=new.destination,
        )  # fmt: skip
        self.submitted.append(new)
        if new.idempotency_key:
            self._keys[key] = (digest, job.id)
        return self._set(job)

    async def get(self, principal: Principal, job_id: str) -> Job:
        self._fail()
        job = self._jobs.get(job_id)
        if job is None or job.tenant != principal.tenant:
            raise JobNotFound(f"there is no job {job_id}")
        return job

    async def list(self, principal: Principal, query: JobQuery) -> JobPage:
        self._fail()
        statuses = query.statuses or frozenset(set(JobStatus) - {JobStatus.EXPIRED})
        mine = [job for job in self._jobs.values() if job.tenant == principal.tenant and query.door in ("", job.door)]
        ordered = mine if query.ascending else mine[::-1]
        if query.after:
            ids = [job.id for job in ordered]
            if query.after not in ids:
                raise JobNotFound(f"there is no job {query.after}")
            ordered = ordered[ids.index(query.after) + 1 :]
        found = [
            job
            for job in ordered
            if job.status in statuses
            and query.batch in ("", job.batch)
            and (query.since is None or job.created_at >= query.since)
            and (query.until is None or job.created_at <= query.until)
        ]
        return JobPage(tuple(found[: query.limit]), len(found) > query.limit)

    async def cancel(self, principal: Principal, job_id: str) -> Job:
        job = await self.get(principal, job_id)
        if job.status.over:
            return job
        if job.status is JobStatus.RUNNING:
            return self._set(replace(job, cancelling=True))
        return self._set(replace(job, status=JobStatus.CANCELLED, ended_at=self.now))

    async def delete(self, principal: Principal, job_id: str) -> None:
        await self.get(principal, job_id)
        del self._jobs[job_id]
        for variant in Variant:
            self._path(job_id, variant).unlink(missing_ok=True)

    async def content(self, principal: Principal, job_id: str, variant: Variant = Variant.VIDEO) -> Content:
        job = await self.get(principal, job_id)
        if job.status is not JobStatus.COMPLETED:
            raise JobNotReady(f"job {job_id} is {job.status.value}")
        path = self._path(job_id, variant)
        size, etag, media_type = path.stat().st_size, f"{variant.value}-{job.sha256[:16]}", MEDIA_TYPES[variant]
        if self.links:
            return Content(media_type, size, etag, url=f"{self.links}/{path.name}")
        return Content(media_type, size, etag, path=path, link=f"/files/{path.name}")

    async def until_over(self, principal: Principal, job_id: str, within_s: float) -> Job:
        """It does not wait: what a test has not done by now does not come."""
        return await self.get(principal, job_id)

    def _path(self, job_id: str, variant: Variant) -> Path:
        return self._folder / f"{job_id}.{variant.value}"

    def _set(self, job: Job) -> Job:
        self._jobs[job.id] = replace(job, updated_at=self.now)
        return self._jobs[job.id]

    def _fail(self) -> None:
        error, self.error = self.error, None
        if error is not None:
            raise error
