"""What callers do to their jobs, each as a function of a connection.

A tenant sees its own jobs, and none that it deleted. A token or a ticket that a front door made sees those that it made itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Connection, and_, func, literal, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from service.database.engine import put_if_absent
from service.database.schema import JOBS
from service.identity.principal import Principal
from service.identity.standings import RequestsLeft
from service.jobs.desk.batches import Batch
from service.jobs.job import IdempotencyConflict, Job, JobNotFound, JobPage, JobQuery, JobStatus
from service.jobs.table.ends import QUEUED, end_jobs
from service.jobs.table.rows import JOB_COLUMNS, job_of
from service.jobs.work import OnEnd

T = TypeVar("T")

_MOST_A_PAGE = 1000


class Raced(Exception):
    """Another transaction put a row with the same key meanwhile: look again."""


Reserve = Callable[[], RequestsLeft | None]
"""Called before rows are inserted. Returns the requests that the tenant has left, where they are limited; raises QuotaExceeded."""


@dataclass(frozen=True, slots=True)
class Put(Generic[T]):
    """What was put, or was there already.

    Attributes:
        made: the job, or the batch's id.
        new: it was put just now.
        left: see `Reserve`; None where nothing was reserved.
    """

    made: T
    new: bool = False
    left: RequestsLeft | None = None


def put_job(connection: Connection, values: dict[str, Any], reserve: Reserve) -> Put[Job]:
    """Insert a row.

    Its idempotency key may have made a job before. So may this very call, whose connection was lost after the commit.

    Raises:
        IdempotencyConflict: the key was used for another request.
        Raced: undo everything, and try again.
    """
    earlier = by_key(connection, values["tenant"], values["door"], values["idempotency_key"])
    if earlier is not None:
        return Put(same_request(earlier, values["request_hash"]))
    mine = select(*JOB_COLUMNS).where(JOBS.c.id == values["id"], JOBS.c.tenant == values["tenant"])
    if (row := connection.execute(mine).one_or_none()) is not None:
        return Put(job_of(row))
    left = reserve()
    if not put_if_absent(connection, JOBS, values):
        raise Raced
    return Put(job_of(connection.execute(mine).one()), new=True, left=left)


def put_batch(connection: Connection, rows: Sequence[dict[str, Any]], reserve: Reserve) -> Put[str]:
    """Insert the rows of a batch, the first of which has the batch's idempotency key.

    Raises as `put_job`.
    """
    first = rows[0]
    batch: str = first["batch"]
    earlier = by_key(connection, first["tenant"], first["door"], first["idempotency_key"])
    if earlier is not None:
        return Put(same_request(earlier, first["request_hash"]).batch)
    if connection.execute(select(JOBS.c.id).where(JOBS.c.batch == batch).limit(1)).first() is not None:
        return Put(batch)
    left = reserve()
    try:
        connection.execute(JOBS.insert(), list(rows))
    except IntegrityError as error:
        raise Raced from error
    return Put(batch, new=True, left=left)


def by_key(connection: Connection, tenant: str, door: str, key: str | None) -> Any:
    """The row that an idempotency key made, with `request_hash` beside the columns of a job; None where there is none."""
    if not key:
        return None
    same = (JOBS.c.tenant == tenant, JOBS.c.door == door, JOBS.c.idempotency_key == key)
    return connection.execute(select(*JOB_COLUMNS, JOBS.c.request_hash).where(*same)).one_or_none()


def same_request(row: Any, request_hash: str) -> Job:
    """The job of `row`. Raises IdempotencyConflict: another request made it."""
    if row.request_hash != request_hash:
        raise IdempotencyConflict("the idempotency key was used for another request; use a new one")
    return job_of(row)


def page(connection: Connection, principal: Principal, query: JobQuery) -> JobPage:
    """One page. A job that was deleted meanwhile still marks its place. Raises JobNotFound: `query.after` is none of the caller's."""
    after = _place(connection, principal, query.after) if query.after else None
    limit = min(max(1, query.limit), _MOST_A_PAGE)
    age = (JOBS.c.created_at, JOBS.c.id)
    order: list[ColumnElement[Any]] = [column if query.ascending else column.desc() for column in age]
    found = select(*JOB_COLUMNS).where(*_own(principal), JOBS.c.deleted.is_(False), *_wanted(query))
    if after is not None:
        here, there = tuple_(*age), tuple_(literal(after[0]), literal(after[1]))
        found = found.where(here > there if query.ascending else here < there)
    rows = connection.execute(found.order_by(*order).limit(limit + 1)).all()
    return JobPage(tuple(job_of(row) for row in rows[:limit]), more=len(rows) > limit)


def batch_jobs(connection: Connection, principal: Principal, batch: str, after_row: int, most: int) -> list[Job]:
    """Up to `most` jobs of a batch from the row after `after_row` on, by row."""
    ours = (JOBS.c.batch == batch, *_own(principal), JOBS.c.deleted.is_(False), JOBS.c.batch_row > after_row)
    return [job_of(row) for row in connection.execute(select(*JOB_COLUMNS).where(*ours).order_by(JOBS.c.batch_row).limit(most)).all()]


def batch_of(connection: Connection, principal: Principal, batch: str) -> Batch:
    """How far a batch is. Raises JobNotFound: the caller has none of that id."""
    ours = (JOBS.c.batch == batch, *_own(principal), JOBS.c.deleted.is_(False))
    counts = select(JOBS.c.status, func.count().label("jobs"), func.min(JOBS.c.created_at).label("made")).where(*ours)
    rows = connection.execute(counts.group_by(JOBS.c.status)).all()
    if not rows:
        raise JobNotFound(f"no batch has the id {batch[:64]!a}")
    return Batch(batch, min(row.made for row in rows), {JobStatus(row.status): row.jobs for row in rows})


def cancel(connection: Connection, principal: Principal, job_id: str, now: float, on_end: OnEnd) -> Job:
    """Cancel a job. Raises JobNotFound."""
    row = connection.execute(select(JOBS.c.status).where(_mine(principal, job_id)).with_for_update()).one_or_none()
    if row is None:
        raise not_found(job_id)
    match JobStatus(row.status):
        case JobStatus.QUEUED:
            return end_jobs(connection, and_(JOBS.c.id == job_id, JOBS.c.status == QUEUED), JobStatus.CANCELLED, now, on_end)[0].job
        case JobStatus.RUNNING:
            connection.execute(update(JOBS).where(JOBS.c.id == job_id).values(cancelling=True, updated_at=now))
    return job_of(connection.execute(select(*JOB_COLUMNS).where(JOBS.c.id == job_id)).one())


def delete(connection: Connection, principal: Principal, job_id: str, now: float, on_end: OnEnd) -> Job:
    """Cancel a job and hide it. Returns it as it was before. Raises JobNotFound.

    The sweep removes its files, then its row. Its idempotency key is free again.
    """
    job = cancel(connection, principal, job_id, now, on_end)
    values: dict[str, Any] = {"deleted": True, "idempotency_key": None, "updated_at": now}
    if job.status.over:
        values["due_at"] = now
    connection.execute(update(JOBS).where(JOBS.c.id == job_id).values(**values))
    return job


def not_found(job_id: str) -> JobNotFound:
    return JobNotFound(f"no job has the id {job_id[:64]!a}")


def reaches(principal: Principal, job: Job) -> bool:
    """Whether the job is there for the caller. `_own` is the same of rows."""
    return job.tenant == principal.tenant and principal.maker in (None, job.maker)


def _own(principal: Principal) -> list[ColumnElement[bool]]:
    mine = [JOBS.c.tenant == principal.tenant]
    return mine if principal.maker is None else [*mine, JOBS.c.maker == principal.maker]


def _mine(principal: Principal, job_id: str) -> ColumnElement[bool]:
    return and_(JOBS.c.id == job_id, *_own(principal), JOBS.c.deleted.is_(False))


def _place(connection: Connection, principal: Principal, job_id: str) -> tuple[float, str]:
    row = connection.execute(select(JOBS.c.created_at).where(JOBS.c.id == job_id, *_own(principal))).one_or_none()
    if row is None:
        raise not_found(job_id)
    return row.created_at, job_id


def _wanted(query: JobQuery) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = []
    if query.statuses:
        wanted.append(JOBS.c.status.in_(sorted(status.value for status in query.statuses)))
    else:
        wanted.append(JOBS.c.status != JobStatus.EXPIRED.value)
    if query.door:
        wanted.append(JOBS.c.door == query.door)
    if query.batch:
        wanted.append(JOBS.c.batch == query.batch)
    if query.since is not None:
        wanted.append(JOBS.c.created_at >= query.since)
    if query.until is not None:
        wanted.append(JOBS.c.created_at <= query.until)
    return wanted
