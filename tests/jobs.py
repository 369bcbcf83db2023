"""Jobs for tests: requests, files in memory, time that a test moves."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from sqlalchemy import Connection, select

from model_core.errors import StageUnavailable
from model_core.presets import DEFAULT_MODEL, millrace_64
from service.checks import Catalogue, Limits, Validator
from service.clock import MonotonicClock
from service.database.engine import Database
from service.database.schema import JOBS
from service.events import Usage
from service.identity.principal import Means, Principal
from service.jobs.desk.drafts import JobChecks
from service.jobs.desk.table_desk import TableDesk
from service.jobs.job import Content, Job, JobNotReady, NewJob, Variant
from service.jobs.table.store import JobStore
from service.jobs.work import EndedJob, Finished, JobPolicy, OnEnd
from service.orders import Doorway, Mode, VideoRequest

ALICE = Principal(tenant="alice", subject="key-1", means=Means.KEY)
BOB = Principal(tenant="bob", subject="key-2", means=Means.KEY)
DOORWAY = Doorway(Mode.FILE)
POLICY = JobPolicy(ttl_s=1000.0, max_ttl_s=5000.0, keep_s=500.0, max_queued_s=10_000.0, max_lost=3)
FINISHED = Finished(size_bytes=1234, sha256="ab" * 32, usage=Usage(fps=24, frames=96, denoise_s=0.5, decode_s=0.25))
LEASE_S = 30.0


def new_job(prompt: str = "a red ball", **changes: Any) -> NewJob:
    """4 s of video. Changes that a request has a field for go into its request, others into the job."""
    given: dict[str, Any] = {each.name: changes.pop(each.name) for each in fields(VideoRequest) if each.name in changes}
    asked: dict[str, Any] = {"prompt": prompt, "seconds": 4.0, **given}
    job = NewJob(door="openai", request=VideoRequest(**asked), doorway=DOORWAY)
    return replace(job, **changes)


class Files:
    """A `JobFiles` in memory. `down`: it does not answer."""

    def __init__(self, now: Wall) -> None:
        self._now = now
        self.down = False
        self.held: dict[str, dict[str, float]] = {}

    def put(self, job_id: str, name: str) -> None:
        self.held.setdefault(job_id, {})[name] = self._now()

    async def put_upload(self, job_id: str, data: bytes) -> str:
        self._answer()
        self.put(job_id, "upload")
        return f"jobs/{job_id}/0/upload"

    async def content(self, job: Job, variant: Variant) -> Content:
        self._answer()
        if "result" not in self.held.get(job.id, {}):
            raise JobNotReady(f"job {job.id} has no {variant.value} any more")
        return Content("video/mp4", job.size_bytes, job.sha256[:32], url=f"https://files.example/{job.id}/{variant.value}")

    async def remove(self, job_id: str, *, keep_result: bool = False) -> None:
        self._answer()
        kept = {name: at for name, at in self.held.pop(job_id, {}).items() if keep_result and name == "result"}
        if kept:
            self.held[job_id] = kept

    async def unchanged_since(self, before: float) -> Sequence[str]:
        self._answer()
        return [job_id for job_id, files in self.held.items() if max(files.values()) <= before]

    def _answer(self) -> None:
        if self.down:
            raise StageUnavailable("the store of artifacts does not answer")


class Wall:
    """Unix time that a test moves."""

    def __init__(self) -> None:
        self.at = 1_700_000_000.0

    def __call__(self) -> float:
        return self.at


class Ends:
    """An `OnEnd` that remembers what it was told by transactions, those that were undone too, and tells `others`."""

    def __init__(self, others: Sequence[OnEnd] = ()) -> None:
        self.seen: list[EndedJob] = []
        self._others = others

    def __call__(self, connection: Connection, ended: EndedJob) -> None:
        self.seen.append(ended)
        for other in self._others:
            other(connection, ended)

    @property
    def statuses(self) -> list[str]:
        return [ended.job.status.value for ended in self.seen]


class Jobs:
    """A desk and a store over one table, with everything that they need.

    Attributes:
        wall: time, for rows.
        woken: how often the desk woke the workers.
    """

    def __init__(self, database: Database, policy: JobPolicy = POLICY, **desk: Any) -> None:
        config = millrace_64()
        self.database, self.policy = database, policy
        self.wall, self.ends = Wall(), Ends(desk.pop("told", ()))
        self.files = Files(self.wall)
        self.woken = 0
        numbers = itertools.count(1)
        validator = Validator(Catalogue({config.name: config}, DEFAULT_MODEL), Limits())
        checks = JobChecks(validator, policy, new_seed=lambda: 2**64 - 1, also=desk.pop("also", ()))
        self.desk = TableDesk(
            database, self.files, checks, MonotonicClock(), self.wall, lambda: f"j{next(numbers):011d}",
            on_end=self.ends, wake=self._wake, **desk,
        )  # fmt: skip
        self.store = JobStore(database, policy, self.wall, self.ends)

    def _wake(self) -> None:
        self.woken += 1

    async def columns(self, job_id: str) -> Mapping[str, Any]:
        """The row of a job; empty where there is none."""

        def read(connection: Connection) -> Mapping[str, Any]:
            row = connection.execute(select(JOBS).where(JOBS.c.id == job_id)).mappings().one_or_none()
            return {} if row is None else dict(row)

        return await self.database.run(read, write=False)

    async def running(self, principal: Principal = ALICE, **changes: Any) -> tuple[str, int]:
        """The id and the fence of a job that a worker has begun."""
        made = await self.desk.submit(principal, new_job(**changes))
        (claimed,) = await self.store.claim("worker", self.wall(), LEASE_S, 1)
        assert claimed.job.id == made.id
        return made.id, claimed.fence
