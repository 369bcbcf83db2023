"""What a completed job is billed: one row of the ledger, written in the transaction that completes it, so exactly once."""

from __future__ import annotations

from collections.abc import Callable

from service.jobs.work import Also, ClaimedJob, Finished
from service.ledger.account import Billed, whole
from service.ledger.interface import Kind, RowWriter


def billing(writer: RowWriter, now: Callable[[], float]) -> Callable[[ClaimedJob, Finished], Also]:
    """The worker's `Bill`. `now` is Unix time."""

    def bill(claimed: ClaimedJob, finished: Finished) -> Also:
        job = claimed.job
        billed = Billed(source=job.id, tenant=job.tenant, door=job.door, model=job.model, tier=job.tier.name.lower(), kind=Kind.JOB)
        row = whole(billed, finished.usage, job.created_at if job.started_at is None else job.started_at)
        return lambda connection: writer.write(connection, [row], now())

    return bill
