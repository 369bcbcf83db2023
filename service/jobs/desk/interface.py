"""What doors ask of jobs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Protocol

from service.identity.principal import Principal
from service.jobs.job import Content, Job, JobPage, JobQuery, NewJob, Variant

if TYPE_CHECKING:
    from service.jobs.desk.batches import Batch


class JobDesk(Protocol):
    """All methods see the jobs of the caller's tenant and no others, and raise StageUnavailable where the database does not answer.

    A token or a ticket that a front door made of another credential sees the jobs that it made itself; see `Principal.maker`.
    """

    async def submit(self, principal: Principal, new: NewJob) -> Job:
        """Check `new`, and put it into the queue.

        Raises:
            InvalidRequest: with everything that is wrong.
            Forbidden: the model, or the destination's bucket, is not for this caller.
            QuotaExceeded: too many queued jobs, or the budget is spent.
            IdempotencyConflict: the key was used for another request. The same request returns the job that it made.
        """
        ...

    async def get(self, principal: Principal, job_id: str) -> Job:
        """Raises JobNotFound."""
        ...

    async def list(self, principal: Principal, query: JobQuery) -> JobPage:
        """Raises JobNotFound: `query.after` is none of the caller's jobs."""
        ...

    async def cancel(self, principal: Principal, job_id: str) -> Job:
        """Ask for the end of a job. One that is over stays as it is. Raises JobNotFound."""
        ...

    async def delete(self, principal: Principal, job_id: str) -> None:
        """Cancel it, and remove its files. It is not found any more. Raises JobNotFound."""
        ...

    async def content(self, principal: Principal, job_id: str, variant: Variant = Variant.VIDEO) -> Content:
        """Raises JobNotFound, or JobNotReady."""
        ...

    async def until_over(self, principal: Principal, job_id: str, within_s: float) -> Job:
        """The job, once it is over or `within_s` has passed. Raises JobNotFound."""
        ...


class BatchDesk(Protocol):
    """What doors ask of batches: many jobs that are submitted together. All methods raise as those of `JobDesk`."""

    async def submit_batch(self, principal: Principal, rows: Sequence[NewJob], idempotency_key: str = "") -> str:
        """Queue many jobs of one door, all or none of them. Returns the batch's id."""
        ...

    async def batch(self, principal: Principal, batch_id: str) -> Batch:
        """How far a batch is. Raises JobNotFound."""
        ...

    def manifest(self, principal: Principal, batch_id: str) -> AsyncGenerator[str, None]:
        """A line of JSON for each job of a batch, by row. There is none where the tenant has no such batch."""
        ...
