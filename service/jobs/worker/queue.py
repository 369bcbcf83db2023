"""What a worker asks of the table of jobs; `service.jobs.table.store` is it."""

from __future__ import annotations

from typing import Protocol

from service.jobs.job import JobError
from service.jobs.work import Also, Beat, Checkpoint, ClaimedJob, Finished


class JobQueue(Protocol):
    """All methods raise StageUnavailable where the database does not answer.

    Those that write for a claim raise LeaseLost where it no longer holds, and change nothing then. One that is repeated after it has had
    its effect changes nothing either.
    """

    async def claim(self, worker: str, now: float, lease_s: float, most: int) -> list[ClaimedJob]:
        """Begin up to `most` jobs, the first in line first. `now` is Unix time."""
        ...

    async def beat(self, job_id: str, fence: int, lease_s: float, frames_done: int) -> Beat:
        """Prolong the lease, and report progress. It does not raise LeaseLost, but returns that."""
        ...

    async def checkpoint(self, job_id: str, fence: int, checkpoint: Checkpoint) -> None: ...

    async def complete(self, job_id: str, fence: int, finished: Finished, also: Also | None = None) -> None: ...

    async def fail(self, job_id: str, fence: int, error: JobError) -> None: ...

    async def cancelled(self, job_id: str, fence: int) -> None: ...

    async def release(self, job_id: str, fence: int, after_s: float = 0.0) -> None:
        """Give the job back, to be begun again not before `after_s` has passed."""
        ...
