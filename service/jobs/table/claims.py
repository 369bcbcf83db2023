"""Which of the queued jobs a worker gets.

The lower tier's number goes first. Within a tier, the tenant with the fewest running jobs goes first, so that nobody waits for another
tenant's ten thousand; of equals, the tenant that has waited the longest. Within a tenant, the oldest job.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, null, select, text, update

from service.database.schema import JOBS
from service.jobs.job import JobError, JobStatus, Tier
from service.jobs.table.ends import QUEUED, RUNNING, end_jobs
from service.jobs.table.rows import CLAIM_COLUMNS, claimed_of
from service.jobs.work import ClaimedJob, JobPolicy, OnEnd

_AT_ONCE = 100  # expired leases in one transaction
# Steps from tenant to tenant through the index, however many jobs each of them has.
_WAITING = text("""
WITH RECURSIVE waiting(tenant) AS (
  SELECT min(tenant) FROM jobs WHERE status = 'queued' AND tier = :tier
  UNION ALL
  SELECT (SELECT min(jobs.tenant) FROM jobs WHERE jobs.status = 'queued' AND jobs.tier = :tier AND jobs.tenant > waiting.tenant)
  FROM waiting WHERE waiting.tenant IS NOT NULL
)
SELECT tenant,
  (SELECT min(jobs.created_at) FROM jobs WHERE jobs.status = 'queued' AND jobs.tier = :tier AND jobs.tenant = waiting.tenant) AS oldest
FROM waiting WHERE tenant IS NOT NULL
""")

# Few rows, found by the index of running jobs: a second column, which the index of all jobs lacks, keeps SQLite from reading all of that.
_RUNNING_NOW = select(JOBS.c.tenant, JOBS.c.lease_until).where(JOBS.c.status == RUNNING)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A tenant with queued jobs, and when the oldest of them was made."""

    tenant: str
    oldest: float


def turns(waiting: Sequence[Waiting], running: Mapping[str, int], most: int) -> dict[str, int]:
    """How many of `most` places each tenant gets, in the order of their first ones."""
    line = [(running.get(one.tenant, 0), one.oldest, one.tenant) for one in waiting]
    heapq.heapify(line)
    places: dict[str, int] = {}
    for _ in range(most if line else 0):
        busy, oldest, tenant = line[0]
        places[tenant] = places.get(tenant, 0) + 1
        heapq.heapreplace(line, (busy + 1, oldest, tenant))
    return places


def after_loss(*, cancelling: bool, lost: int, max_lost: int) -> JobStatus:
    """What becomes of a running job whose worker is gone; `lost` counts this one too."""
    if cancelling:
        return JobStatus.CANCELLED
    return JobStatus.FAILED if lost >= max_lost else JobStatus.QUEUED


def recover(connection: Connection, policy: JobPolicy, now: float, on_end: OnEnd) -> None:
    """Take jobs from workers whose leases ran out."""
    expired = (
        select(JOBS.c.id, JOBS.c.cancelling, JOBS.c.lost)
        .where(JOBS.c.status == RUNNING, JOBS.c.lease_until < now)
        .limit(_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    for row in connection.execute(expired).all():
        lost = row.lost + 1
        match after_loss(cancelling=row.cancelling, lost=lost, max_lost=policy.max_lost):
            case JobStatus.QUEUED:
                requeue(connection, row.id, policy, now, not_before=now, lost=lost)
            case JobStatus.FAILED:
                message = f"{lost} workers were lost over it, one after the other, and none of them came further"
                end_jobs(connection, JOBS.c.id == row.id, JobStatus.FAILED, now, on_end, JobError("internal", message), lost=lost)
            case over:
                end_jobs(connection, JOBS.c.id == row.id, over, now, on_end)


def requeue(connection: Connection, job_id: str, policy: JobPolicy, now: float, *, not_before: float, lost: int) -> None:
    """Put a running job back into the queue, where it keeps its age and its checkpoint."""
    values = {"worker": "", "lease_until": null(), "not_before": not_before, "lost": lost, "updated_at": now}
    connection.execute(update(JOBS).where(JOBS.c.id == job_id).values(status="queued", due_at=now + policy.max_queued_s, **values))


def claim(connection: Connection, worker: str, lease_s: float, most: int, now: float, on_end: OnEnd) -> list[ClaimedJob]:
    """Begin up to `most` jobs for `worker`."""
    running = Counter(row.tenant for row in connection.execute(_RUNNING_NOW).all())
    ids: list[str] = []
    for tier in sorted(tier.value for tier in Tier):
        if len(ids) >= most:
            break
        waiting = {row.tenant: Waiting(row.tenant, row.oldest) for row in connection.execute(_WAITING, {"tier": tier}).all()}
        while waiting and len(ids) < most:
            for tenant, places in turns([*waiting.values()], running, most - len(ids)).items():
                taken = _oldest(connection, tier, tenant, now, places, ids)
                ids += taken
                running[tenant] += len(taken)
                if len(taken) < places:  # there are no more of them, or others are taking them
                    del waiting[tenant]
    return _begin(connection, ids, worker, lease_s, now, on_end) if ids else []


def _oldest(connection: Connection, tier: int, tenant: str, now: float, most: int, taken: Sequence[str]) -> list[str]:
    ours = (JOBS.c.status == QUEUED, JOBS.c.tier == tier, JOBS.c.tenant == tenant, JOBS.c.not_before <= now, JOBS.c.id.not_in(taken))
    found = select(JOBS.c.id).where(*ours).order_by(JOBS.c.created_at, JOBS.c.id).limit(most).with_for_update(skip_locked=True)
    return list(connection.scalars(found).all())


def _begin(connection: Connection, ids: list[str], worker: str, lease_s: float, now: float, on_end: OnEnd) -> list[ClaimedJob]:
    begun = (
        update(JOBS)
        .where(JOBS.c.id.in_(ids))
        .values(
            status="running", worker=worker, lease_until=now + lease_s, fence=JOBS.c.fence + 1, attempts=JOBS.c.attempts + 1,
            started_at=func.coalesce(JOBS.c.started_at, now), updated_at=now, due_at=null(), files="all",
        )
        .returning(*CLAIM_COLUMNS)
    )  # fmt: skip
    claimed: dict[str, ClaimedJob] = {}
    for row in connection.execute(begun).all():
        try:
            claimed[row.id] = claimed_of(row)
        except (KeyError, TypeError, ValueError):  # which must not keep all other jobs from their workers
            error = JobError("internal", "what was asked for can no longer be read")
            end_jobs(connection, JOBS.c.id == row.id, JobStatus.FAILED, now, on_end, error)
    return [claimed[job_id] for job_id in ids if job_id in claimed]
