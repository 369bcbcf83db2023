"""What time does to jobs: files that are needed no more go, jobs expire, and their rows go in the end.

A row says in `due_at` when the sweep has something to do about it, and in `files` what the store of artifacts may still have of it. Files
go before the row forgets them, so a sweep that dies half way leaves nothing behind: another one does the same again.

    queued for too long                  → failed
    over                                 its files go, but for the result of a completed job
    over for its time to live            → expired, and the result goes
    expired for some more time           the row goes
    deleted by its caller, and over      its files go, and the row at once

Files without a row, as a front door leaves them that dies between an upload and its row, are looked for now and then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import Any

from sqlalchemy import Connection, delete, select, update

from model_core.errors import StageUnavailable
from service.clock import Clock
from service.database.engine import Database
from service.database.schema import JOBS
from service.jobs.files.job_files import JobFiles
from service.jobs.job import JobError, JobStatus
from service.jobs.table.claims import recover
from service.jobs.table.ends import end_jobs, nobody_waits
from service.jobs.work import JobPolicy, OnEnd

_AT_ONCE = 100  # rows in one transaction
_RETRY_S = 60.0  # when another sweep tries what this one has begun and did not finish
_ORPHAN_S = 6 * 3600.0  # files without a row, unchanged for so long, belong to no submission under way
_ORPHANS_EVERY_S = 3600.0

log = logging.getLogger(__name__)


class Chore(Enum):
    """What is to be done about a row."""

    NOTHING = auto()
    FAIL = auto()  # it was queued for too long
    EXPIRE = auto()
    TRIM = auto()  # all files but the result go
    EMPTY = auto()  # all files go
    FORGET = auto()  # the row goes


@dataclass(frozen=True, slots=True, kw_only=True)
class Aged:
    """What a row says about its time."""

    status: JobStatus
    deleted: bool
    files: str
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did, in jobs."""

    failed: int = 0
    expired: int = 0
    emptied: int = 0
    forgotten: int = 0


def chore(row: Aged, now: float) -> Chore:
    """The next thing to do about a row that is due."""
    if not row.status.over:
        return Chore.FAIL if row.status is JobStatus.QUEUED else Chore.NOTHING
    if row.deleted or row.status is JobStatus.EXPIRED:
        return Chore.FORGET if row.files == "none" else Chore.EMPTY
    if row.expires_at is not None and row.expires_at <= now:
        return Chore.EXPIRE
    if row.files == "all":
        return Chore.TRIM if row.status is JobStatus.COMPLETED else Chore.EMPTY
    return Chore.NOTHING


class Sweep:
    """For one front door. Several of them may sweep at once.

    Args:
        database, files: what is swept.
        policy: for how long things stay.
        clock: between sweeps.
        now: Unix time.
        on_end: told of jobs that fail here.
    """

    def __init__(
        self,
        database: Database,
        files: JobFiles,
        policy: JobPolicy,
        clock: Clock,
        now: Callable[[], float],
        on_end: OnEnd = nobody_waits,
    ) -> None:
        self._database = database
        self._files = files
        self._policy = policy
        self._clock = clock
        self._now = now
        self._on_end = on_end

    async def run(self, every_s: float) -> None:
        """Sweep until cancelled. A database or a store that is away is tried again the next time."""
        orphans_at = self._clock.now()
        while True:
            try:
                swept = await self.once()
                if swept != Swept():
                    log.info("swept jobs: %s", swept)
                if self._clock.now() >= orphans_at:
                    orphans_at = self._clock.now() + _ORPHANS_EVERY_S
                    await self.orphans()
            except StageUnavailable as error:
                log.warning("jobs are not swept now: %s", error)
            except Exception:
                log.exception("jobs are not swept now")
            await self._clock.sleep(every_s)

    async def once(self) -> Swept:
        """Do what is due."""
        total = Swept()
        while True:
            done, emptying, more = await self._database.run(self._take)
            for job_id, keep_result in emptying:
                await self._files.remove(job_id, keep_result=keep_result)
                forgotten = await self._database.run(partial(self._emptied, job_id=job_id, keep_result=keep_result))
                done = Swept(done.failed, done.expired, done.emptied + 1, done.forgotten + forgotten)
            total = Swept(
                total.failed + done.failed, total.expired + done.expired, total.emptied + done.emptied, total.forgotten + done.forgotten
            )
            if not more:
                return total

    async def orphans(self) -> int:
        """Remove files whose jobs have no row. Returns of how many jobs."""
        ids = await self._files.unchanged_since(self._now() - _ORPHAN_S)
        known = await self._database.run(partial(_known, job_ids=list(ids)), write=False)
        strays = [job_id for job_id in ids if job_id not in known]
        for job_id in strays:
            await self._files.remove(job_id)
        if strays:
            log.info("removed files of %d jobs that have no row", len(strays))
        return len(strays)

    def _take(self, connection: Connection) -> tuple[Swept, list[tuple[str, bool]], bool]:
        """Do what needs no files; return what does, which is put off meanwhile, and whether there is more."""
        now = self._now()
        recover(connection, self._policy, now, self._on_end)
        columns = (JOBS.c.id, JOBS.c.status, JOBS.c.deleted, JOBS.c.files, JOBS.c.expires_at)
        due = select(*columns).where(JOBS.c.due_at <= now).order_by(JOBS.c.due_at).limit(_AT_ONCE).with_for_update(skip_locked=True)
        rows = connection.execute(due).all()
        failed = expired = forgotten = 0
        emptying: list[tuple[str, bool]] = []
        for row in rows:
            match chore(_aged(row), now):
                case Chore.FAIL:
                    self._fail(connection, row.id, now)
                    failed += 1
                case Chore.EXPIRE:
                    # Without files it is over with it; with files it is due at once.
                    later = now + self._policy.keep_s if row.files == "none" else now
                    _set(connection, row.id, status=JobStatus.EXPIRED.value, updated_at=now, due_at=later)
                    expired += 1
                case Chore.FORGET:
                    connection.execute(delete(JOBS).where(JOBS.c.id == row.id))
                    forgotten += 1
                case Chore.TRIM | Chore.EMPTY as kind:
                    _set(connection, row.id, due_at=now + _RETRY_S)
                    emptying.append((row.id, kind is Chore.TRIM))
                case Chore.NOTHING:
                    _set(connection, row.id, due_at=row.expires_at)
        return Swept(failed=failed, expired=expired, forgotten=forgotten), emptying, len(rows) == _AT_ONCE or expired + failed > 0

    def _fail(self, connection: Connection, job_id: str, now: float) -> None:
        message = f"no worker took it up within {self._policy.max_queued_s:g} s"
        end_jobs(connection, JOBS.c.id == job_id, JobStatus.FAILED, now, self._on_end, JobError("unavailable", message))

    def _emptied(self, connection: Connection, job_id: str, *, keep_result: bool) -> int:
        """Note that files are gone. Returns 1 where the row went with them."""
        columns = (JOBS.c.id, JOBS.c.status, JOBS.c.deleted, JOBS.c.files, JOBS.c.expires_at)
        row = connection.execute(select(*columns).where(JOBS.c.id == job_id).with_for_update()).one_or_none()
        if row is None:
            return 0
        now = self._now()
        if keep_result:
            # Deleted or expired meanwhile, it is due at once.
            usual = row.status == JobStatus.COMPLETED.value and not row.deleted
            _set(connection, job_id, files="result", due_at=row.expires_at if usual else now)
        elif row.deleted:
            connection.execute(delete(JOBS).where(JOBS.c.id == job_id))
            return 1
        else:
            kept = now + self._policy.keep_s if row.status == JobStatus.EXPIRED.value else row.expires_at
            _set(connection, job_id, files="none", due_at=kept)
        return 0


def _set(connection: Connection, job_id: str, **values: Any) -> None:
    connection.execute(update(JOBS).where(JOBS.c.id == job_id).values(**values))


def _aged(row: Any) -> Aged:
    return Aged(status=JobStatus(row.status), deleted=row.deleted, files=row.files, expires_at=row.expires_at)


def _known(connection: Connection, job_ids: list[str]) -> set[str]:
    return set(connection.scalars(select(JOBS.c.id).where(JOBS.c.id.in_(job_ids))).all())
