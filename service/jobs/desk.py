"""What doors ask of jobs."""

from __future__ import annotations

from typing import Protocol

from service.identity.principal import Principal
from service.jobs.job import Content, Job, JobPage, JobQuery, NewJob, Variant


class JobDesk(Protocol):
    """All methods see the jobs of the caller's tenant and no others, and raise StageUnavailable where the database does not answer."""

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
