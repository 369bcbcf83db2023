"""How a job ends, whoever ends it: in one statement, and with everybody who waits for the end told in the same transaction."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Text, case, literal_column, null, or_, update

from service.database.schema import JOBS
from service.jobs.job import JobError, JobStatus
from service.jobs.table.rows import JOB_COLUMNS, error_text, job_of, webhook_of
from service.jobs.work import EndedJob, OnEnd

# Spelled out, so that the indexes of queued and of running jobs serve.
QUEUED: ColumnElement[str] = literal_column("'queued'", Text)
RUNNING: ColumnElement[str] = literal_column("'running'", Text)


def end_jobs(
    connection: Connection,
    where: ColumnElement[bool],
    status: JobStatus,
    now: float,
    on_end: OnEnd,
    error: JobError | None = None,
    **values: Any,
) -> list[EndedJob]:
    """End the jobs that fit `where`, which must select none that is over. `values` are further columns."""
    ended = (
        update(JOBS)
        .where(where)
        .values(
            status=status.value, ended_at=now, updated_at=now, expires_at=now + JOBS.c.ttl_s, cancelling=False, worker="",
            lease_until=null(), checkpoint=null(), error=None if error is None else error_text(error),
            # Where there are files, the sweep looks soon which of them are needed no more.
            due_at=case((or_(JOBS.c.deleted, JOBS.c.files != "none"), now), else_=now + JOBS.c.ttl_s), **values,
        )
        .returning(*JOB_COLUMNS, JOBS.c.webhook)
    )  # fmt: skip
    found = [EndedJob(job_of(row), webhook_of(row)) for row in connection.execute(ended).all()]
    for job in found:
        on_end(connection, job)
    return found


def nobody_waits(connection: Connection, ended: EndedJob) -> None:
    """An `OnEnd` that tells nobody."""
