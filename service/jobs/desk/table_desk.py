"""The job desk over a table: what doors ask of jobs, for all front doors that share a database."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection

from model_core.errors import StageUnavailable
from service.clock import Clock
from service.database.engine import Database
from service.identity.principal import Principal, QuotaExceeded
from service.identity.standings import RequestsLeft
from service.jobs.desk import queries
from service.jobs.desk.batches import Batch, Wrong, batch_hash, manifest_line
from service.jobs.desk.drafts import Draft, JobChecks, request_hash
from service.jobs.desk.known import KnownJobs
from service.jobs.desk.lookup import Lookup
from service.jobs.desk.queries import Put
from service.jobs.files.job_files import JobFiles
from service.jobs.job import Content, IdempotencyConflict, Job, JobNotReady, JobPage, JobQuery, JobStatus, NewJob, Variant
from service.jobs.table.ends import nobody_waits
from service.jobs.work import OnEnd

T = TypeVar("T")

_RACES = 3  # a race is lost to a transaction that is over by then
_PAGE = 500
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
# Rows of a batch are made in one moment; this keeps them in order, and is more than the resolution of Unix time in 64 bits.
_APART_S = 1e-6

log = logging.getLogger(__name__)


class JobQuotas(Protocol):
    """Limits of tenants. What is reserved for a job is settled by an `OnEnd`."""

    def reserve(self, connection: Connection, principal: Principal, seconds: Mapping[str, float]) -> RequestsLeft | None:
        """Reserve seconds of video for new jobs, by their ids, in the caller's transaction. Their rows are not in the table yet.

        Returns:
            Requests of the tenant, with this one; None where it has no limit of them.

        Raises:
            QuotaExceeded: too many queued jobs, or the budget is spent; nothing is reserved.
        """
        ...


class NoJobQuotas:
    """Nobody has limits."""

    def reserve(self, connection: Connection, principal: Principal, seconds: Mapping[str, float]) -> None:
        """Nothing is reserved."""


JobAudit = Callable[[Connection, Principal, str, str], None]
"""Writes down, in the caller's transaction, that a caller did something (`job.submit` and the like) to the job of some id."""


def no_audit(connection: Connection, principal: Principal, operation: str, job_id: str) -> None:
    """A `JobAudit` that writes nothing."""


class TableDesk:
    """A `JobDesk`. One for each front door.

    Args:
        database: where the table is.
        files: where uploads and results are.
        checks: what new jobs must pass.
        clock: for waiting.
        now: Unix time.
        new_id: 12 characters of [a-z0-9], unguessable.
        quotas: limits of tenants.
        on_end: told of jobs that end here: those that are cancelled before they begin.
        audit: told of what callers change.
        counted: told how many requests a tenant has left.
        wake: called when there is a new job, which other front doors find a little later by themselves.
        cancelling: called with the id of a running job that is to be cancelled, which its worker sees at its next beat at the latest.
    """

    def __init__(
        self,
        database: Database,
        files: JobFiles,
        checks: JobChecks,
        clock: Clock,
        now: Callable[[], float],
        new_id: Callable[[], str],
        *,
        quotas: JobQuotas | None = None,
        on_end: OnEnd = nobody_waits,
        audit: JobAudit = no_audit,
        counted: Callable[[str, RequestsLeft], None] = lambda _tenant, _left: None,
        wake: Callable[[], None] = lambda: None,
        cancelling: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._database = database
        self._files = files
        self._checks = checks
        self._clock = clock
        self._now = now
        self._new_id = new_id
        self._quotas = NoJobQuotas() if quotas is None else quotas
        self._on_end = on_end
        self._audit = audit
        self._counted = counted
        self._wake = wake
        self._cancelling = cancelling
        self._lookup = Lookup(KnownJobs(database).read, clock)

    async def submit(self, principal: Principal, new: NewJob) -> Job:
        """See `JobDesk`."""
        draft = self._checks.draft(principal, new, self._new_id())
        asked = _whose(principal, await asyncio.to_thread(request_hash, new)) if new.idempotency_key else ""
        earlier = await self._earlier(principal, new.door, new.idempotency_key)
        if earlier is not None:
            return queries.same_request(earlier, asked)
        key = None if draft.upload is None else await self._files.put_upload(draft.id, draft.upload)
        values = draft.row(self._now(), asked, key)
        reserve = {draft.id: draft.seconds}
        try:
            put = await self._racing(partial(self._put, principal=principal, values=values, seconds=reserve))
        except (QuotaExceeded, IdempotencyConflict):
            await self._forget_uploads([] if key is None else [draft.id])
            raise
        if put.made.id != draft.id:
            await self._forget_uploads([] if key is None else [draft.id])
        self._queued(principal, put)
        return put.made

    async def submit_batch(self, principal: Principal, rows: Sequence[NewJob], idempotency_key: str = "") -> str:
        """Queue many jobs of one door, all or none of them. Returns the batch's id.

        Args:
            rows: one at least; their own idempotency keys do not count. An upload is stored for each that has one.
            idempotency_key: the same key and rows make no second batch; empty for none.

        Raises as `submit`.
        """
        batch = self._new_id()
        rows = [replace(row, idempotency_key="" if number else idempotency_key) for number, row in enumerate(rows)]
        drafts = await asyncio.to_thread(self._drafts, principal, rows)
        asked = _whose(principal, await asyncio.to_thread(batch_hash, rows)) if idempotency_key else ""
        earlier = await self._earlier(principal, rows[0].door, idempotency_key)
        if earlier is not None:
            return queries.same_request(earlier, asked).batch
        now = self._now()
        values: list[dict[str, Any]] = []
        for number, draft in enumerate(drafts):
            key = None if draft.upload is None else await self._files.put_upload(draft.id, draft.upload)
            values.append(draft.row(now + number * _APART_S, "", key, batch, number))
        values[0]["request_hash"] = asked
        reserve = {draft.id: draft.seconds for draft in drafts}
        uploads = [draft.id for draft in drafts if draft.upload is not None]
        try:
            put = await self._racing(partial(self._put_batch, principal=principal, values=values, seconds=reserve))
        except (QuotaExceeded, IdempotencyConflict):
            await self._forget_uploads(uploads)
            raise
        if put.made != batch:
            await self._forget_uploads(uploads)
        self._queued(principal, put)
        return put.made

    async def get(self, principal: Principal, job_id: str) -> Job:
        """See `JobDesk`."""
        job = await self._lookup.get(job_id)
        if job is None or not queries.reaches(principal, job):
            raise queries.not_found(job_id)
        return job

    async def list(self, principal: Principal, query: JobQuery) -> JobPage:
        """See `JobDesk`."""
        return await self._database.run(partial(queries.page, principal=principal, query=query), write=False)

    async def cancel(self, principal: Principal, job_id: str) -> Job:
        """See `JobDesk`."""
        job = await self._database.run(partial(self._cancel, principal=principal, job_id=job_id))
        if job.cancelling:
            self._cancelling(job_id)
        return job

    async def delete(self, principal: Principal, job_id: str) -> None:
        """See `JobDesk`. The files go with the next sweep."""
        job = await self._database.run(partial(self._delete, principal=principal, job_id=job_id))
        if job.cancelling:
            self._cancelling(job_id)

    async def content(self, principal: Principal, job_id: str, variant: Variant = Variant.VIDEO) -> Content:
        """See `JobDesk`."""
        job = await self.get(principal, job_id)
        if job.status is not JobStatus.COMPLETED:
            raise JobNotReady(f"job {job_id} must be completed; it is {job.status.value}")
        return await self._files.content(job, variant)

    async def until_over(self, principal: Principal, job_id: str, within_s: float) -> Job:
        """See `JobDesk`."""
        until, pause_s = self._clock.now() + within_s, _FIRST_PAUSE_S
        while True:
            job = await self.get(principal, job_id)
            left_s = until - self._clock.now()
            if job.status.over or left_s <= 0:
                return job
            await self._clock.sleep(min(pause_s, left_s))
            pause_s = min(1.5 * pause_s, _LONGEST_PAUSE_S)

    async def batch(self, principal: Principal, batch_id: str) -> Batch:
        """How far a batch is. Raises JobNotFound: the caller has none of that id."""
        return await self._database.run(partial(queries.batch_of, principal=principal, batch=batch_id), write=False)

    async def manifest(self, principal: Principal, batch_id: str) -> AsyncGenerator[str, None]:
        """A line of JSON for each job of a batch, by row. There is none where the tenant has no such batch."""
        after = -1
        while True:
            some = partial(queries.batch_jobs, principal=principal, batch=batch_id, after_row=after, most=_PAGE)
            jobs = await self._database.run(some, write=False)
            for job in jobs:
                yield manifest_line(job)
            if len(jobs) < _PAGE:
                return
            after = jobs[-1].batch_row

    async def aclose(self) -> None:
        """Callers that wait for a look at the table are cancelled."""
        await self._lookup.aclose()

    def _drafts(self, principal: Principal, rows: Sequence[NewJob]) -> Sequence[Draft]:
        drafts: list[Draft] = []
        wrong = Wrong()
        for row in rows:
            with wrong:
                drafts.append(self._checks.draft(principal, row, self._new_id()))
        wrong.check()
        return drafts

    async def _earlier(self, principal: Principal, door: str, key: str) -> Any:
        """The row that an idempotency key made, before anything is stored for a second one."""
        if not key:
            return None
        return await self._database.run(partial(queries.by_key, tenant=principal.tenant, door=door, key=key), write=False)

    async def _racing(self, work: Callable[[Connection], T]) -> T:
        for _ in range(_RACES):
            try:
                return await self._database.run(work)
            except queries.Raced:
                continue
        raise StageUnavailable("another request with the same idempotency key is under way; try again")

    async def _forget_uploads(self, job_ids: Sequence[str]) -> None:
        """What was stored for jobs that are not to be. What cannot be removed now, the sweep finds."""
        for job_id in job_ids:
            try:
                await self._files.remove(job_id)
            except StageUnavailable as error:
                log.warning("the upload of job %s, which was refused, stays for now: %s", job_id, error)

    def _queued(self, principal: Principal, put: Put[Job] | Put[str]) -> None:
        if put.left is not None:
            self._counted(principal.tenant, put.left)
        if put.new:
            self._wake()

    def _put(self, connection: Connection, principal: Principal, values: dict[str, Any], seconds: Mapping[str, float]) -> Put[Job]:
        put = queries.put_job(connection, values, partial(self._quotas.reserve, connection, principal, seconds))
        if put.new:
            self._audit(connection, principal, "job.submit", put.made.id)
        return put

    def _put_batch(
        self, connection: Connection, principal: Principal, values: Sequence[dict[str, Any]], seconds: Mapping[str, float]
    ) -> Put[str]:
        put = queries.put_batch(connection, values, partial(self._quotas.reserve, connection, principal, seconds))
        if put.new:
            self._audit(connection, principal, "batch.submit", put.made)
        return put

    def _cancel(self, connection: Connection, principal: Principal, job_id: str) -> Job:
        job = queries.cancel(connection, principal, job_id, self._now(), self._on_end)
        self._audit(connection, principal, "job.cancel", job_id)
        return job

    def _delete(self, connection: Connection, principal: Principal, job_id: str) -> Job:
        job = queries.delete(connection, principal, job_id, self._now(), self._on_end)
        self._audit(connection, principal, "job.delete", job_id)
        return job


def _whose(principal: Principal, request_hash: str) -> str:
    """So that the idempotency key of another caller's job finds no job that this caller does not reach."""
    return request_hash if principal.maker is None else f"{request_hash} {principal.maker}"
