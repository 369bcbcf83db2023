"""What the table asks of the store of artifacts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from service.jobs.job import Content, Job, Variant


class JobFiles(Protocol):
    """Files of jobs, each under the id of its job. All methods raise StageUnavailable where the store does not answer."""

    async def put_upload(self, job_id: str, data: bytes) -> str:
        """Keep what came with a request. Returns its key."""
        ...

    async def content(self, job: Job, variant: Variant) -> Content:
        """A file of a completed job. Raises JobNotReady: there is no such file any more."""
        ...

    async def remove(self, job_id: str, *, keep_result: bool = False) -> None:
        """Remove all files of a job, or all but its result. Files that are gone already are no error."""
        ...

    async def unchanged_since(self, before: float) -> Sequence[str]:
        """Some ids, 1000 at most, of jobs none of whose files changed after `before`, a Unix time."""
        ...
