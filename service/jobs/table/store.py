"""What workers do to jobs. Each method is one transaction.

    claim       begin jobs: each has a lease, which `beat` prolongs, and a fence, which all else must name
    checkpoint  say where the next worker could go on
    complete, fail, cancelled    end it
    release     give it back to the queue, as when the server drains

A worker that was away for longer than its lease finds its fence outdated, and changes nothing. All methods raise StageUnavailable where the
database does not answer. Leases are judged by the clocks of the nodes, which may differ by much less than a lease.

With SQLite, a power cut may undo all but ends. It ends the workers too, and the next ones go on from where the table is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, select, update

from service.database.engine import Database
from service.database.schema import JOBS
from service.jobs.job import Job, JobError, JobStatus
from service.jobs.table.claims import claim, recover, requeue
from service.jobs.table.ends import RUNNING, end_jobs, nobody_waits
from service.jobs.table.rows import JOB_COLUMNS, checkpoint_text, job_of, quality_text, usage_text
from service.jobs.work import Also, Beat, Checkpoint, ClaimedJob, Finished, JobPolicy, LeaseLost, OnEnd


class JobStore:
    """For the workers of one front door.

    Args:
        database: where the table is.
        policy: how often a job is tried, and how long things stay.
        now: Unix time.
        on_end: told of each job that ends.
    """

    def __init__(self, database: Database, policy: JobPolicy, now: Callable[[], float], on_end: OnEnd = nobody_waits) -> None:
        self._database = database
        self._policy = policy
        self._now = now
        self._on_end = on_end

    async def claim(self, worker: str, now: float, lease_s: float, most: int) -> list[ClaimedJob]:
        """Begin up to `most` jobs. Jobs of workers whose leases ran out are taken back first.

        Args:
            worker: a name for people who look into the table.
            now: Unix time.
        """
        return await self._database.run(partial(self._claim, worker, now, lease_s, most), lazy=True)

    async def beat(self, job_id: str, fence: int, lease_s: float, frames_done: int) -> Beat:
        """Prolong the lease, and report progress, which does not go back."""
        return await self._database.run(partial(self._beat, job_id, fence, lease_s, frames_done), lazy=True)

    async def checkpoint(self, job_id: str, fence: int, checkpoint: Checkpoint) -> None:
        """Say where the next worker could go on, once everything that `checkpoint` names is stored. Raises LeaseLost."""
        values = {"checkpoint": checkpoint_text(checkpoint), "frames_done": _no_less(checkpoint.next_frame), "lost": 0}
        await self._database.run(partial(self._write, job_id, fence, values), lazy=True)

    async def complete(self, job_id: str, fence: int, finished: Finished, also: Also | None = None) -> None:
        """The file is where `JobFiles.content` finds it. From now on callers see it. Raises LeaseLost.

        Args:
            also: more to write in the same transaction, as rows of the ledger.
        """
        values = {
            "size_bytes": finished.size_bytes, "sha256": finished.sha256, "usage": usage_text(finished.usage),
            "quality": quality_text(finished.quality), "frames_done": JOBS.c.frames_total,
        }  # fmt: skip
        await self._database.run(partial(self._end, job_id, fence, JobStatus.COMPLETED, None, values, also))

    async def fail(self, job_id: str, fence: int, error: JobError, also: Also | None = None) -> None:
        """It cannot be made. Raises LeaseLost."""
        await self._database.run(partial(self._end, job_id, fence, JobStatus.FAILED, error, {}, also))

    async def cancelled(self, job_id: str, fence: int, also: Also | None = None) -> None:
        """The worker has stopped, since a beat said so. Raises LeaseLost."""
        await self._database.run(partial(self._end, job_id, fence, JobStatus.CANCELLED, None, {}, also))

    async def release(self, job_id: str, fence: int, after_s: float = 0.0) -> None:
        """Give the job back, to be begun again not before `after_s` has passed. One that is to be cancelled ends."""
        await self._database.run(partial(self._release, job_id, fence, after_s), lazy=True)

    async def read(self, job_ids: Sequence[str]) -> dict[str, Job]:
        """Those of the jobs that there are, whoever's they are, deleted ones left out."""
        return await self._database.run(partial(read_jobs, job_ids=job_ids), write=False)

    async def recover(self) -> None:
        """What `claim` does first, for a server whose workers claim nothing."""
        await self._database.run(self._recover)

    def _recover(self, connection: Connection) -> None:
        recover(connection, self._policy, self._now(), self._on_end)

    def _claim(self, worker: str, now: float, lease_s: float, most: int, connection: Connection) -> list[ClaimedJob]:
        recover(connection, self._policy, now, self._on_end)
        return claim(connection, worker, lease_s, most, now, self._on_end) if most > 0 else []

    def _beat(self, job_id: str, fence: int, lease_s: float, frames_done: int, connection: Connection) -> Beat:
        now = self._now()
        values = {"lease_until": now + lease_s, "updated_at": now, "frames_done": _no_less(frames_done)}
        beat = update(JOBS).where(_held(job_id, fence)).values(**values).returning(JOBS.c.cancelling)
        row = connection.execute(beat).one_or_none()
        return Beat(lost=True) if row is None else Beat(cancelling=row.cancelling)

    def _write(self, job_id: str, fence: int, values: dict[str, Any], connection: Connection) -> None:
        written = update(JOBS).where(_held(job_id, fence)).values(updated_at=self._now(), **values)
        if connection.execute(written).rowcount != 1:
            raise _lost(job_id)

    def _end(
        self,
        job_id: str,
        fence: int,
        status: JobStatus,
        error: JobError | None,
        values: dict[str, Any],
        also: Also | None,
        connection: Connection,
    ) -> None:
        if end_jobs(connection, _held(job_id, fence), status, self._now(), self._on_end, error, **values):
            if also is not None:
                also(connection)
            return
        # After a lost connection the same write may come twice.
        again = select(JOBS.c.id).where(JOBS.c.id == job_id, JOBS.c.fence == fence, JOBS.c.status == status.value)
        if connection.execute(again).one_or_none() is None:
            raise _lost(job_id)

    def _release(self, job_id: str, fence: int, after_s: float, connection: Connection) -> None:
        now, held = self._now(), select(JOBS.c.cancelling, JOBS.c.lost).where(_held(job_id, fence)).with_for_update()
        row = connection.execute(held).one_or_none()
        if row is None:
            return
        if row.cancelling:
            end_jobs(connection, _held(job_id, fence), JobStatus.CANCELLED, now, self._on_end)
        else:
            requeue(connection, job_id, self._policy, now, not_before=now + after_s, lost=row.lost)


def read_jobs(connection: Connection, job_ids: Sequence[str]) -> dict[str, Job]:
    """As `JobStore.read`."""
    rows = connection.execute(select(*JOB_COLUMNS).where(JOBS.c.id.in_(job_ids), JOBS.c.deleted.is_(False))).all()
    return {row.id: job_of(row) for row in rows}


def _held(job_id: str, fence: int) -> ColumnElement[bool]:
    """The job, while the worker with this fence has it."""
    return and_(JOBS.c.id == job_id, JOBS.c.fence == fence, JOBS.c.status == RUNNING)


def _no_less(frames: int) -> ColumnElement[int]:
    return case((JOBS.c.frames_done < frames, frames), else_=JOBS.c.frames_done)


def _lost(job_id: str) -> LeaseLost:
    return LeaseLost(f"job {job_id} is no longer this worker's, or is over")
