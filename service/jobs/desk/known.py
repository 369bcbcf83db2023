"""Jobs that are asked for again and again: read in full when they have changed, and only looked at otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from sqlalchemy import Connection, bindparam, select

from service.database.engine import Database
from service.database.schema import JOBS
from service.jobs.job import Job
from service.jobs.table.rows import VERSION_COLUMNS, version_of
from service.jobs.table.store import read_jobs

_MOST = 4096
# Larger ones are read each time, so that a few callers with long prompts do not fill the memory.
_MOST_CHARS = 4096
# Made once: to put it together takes longer than to run it.
_SEEN = select(JOBS.c.id, *VERSION_COLUMNS).where(JOBS.c.id.in_(bindparam("ids", expanding=True)), JOBS.c.deleted.is_(False))


class KnownJobs:
    """Reads jobs of the table for one event loop, and keeps those that it has read.

    What `read` returns is always as new as the table. A job that has not changed since the last time is the same object.

    Args:
        database: with the table.
        most: jobs that are kept; beyond them, those that were read first go.
    """

    def __init__(self, database: Database, most: int = _MOST) -> None:
        self._database = database
        self._most = most
        self._kept: dict[str, Job] = {}

    async def read(self, job_ids: Sequence[str]) -> dict[str, Job]:
        """As `JobStore.read`."""
        kept = {job_id: job for job_id in job_ids if (job := self._kept.get(job_id)) is not None}
        found, fresh = await self._database.run(partial(_read, job_ids, kept), write=False)
        for job_id in job_ids:
            if job_id in fresh or job_id not in found:
                self._kept.pop(job_id, None)
        for job_id, job in fresh.items():
            self._keep(job_id, job)
        return found

    def _keep(self, job_id: str, job: Job) -> None:
        if len(job.prompt) + sum(len(str(more)) for more in (job.shown, job.labels, job.error)) > _MOST_CHARS:
            return
        while len(self._kept) >= self._most:
            del self._kept[next(iter(self._kept))]
        self._kept[job_id] = job


def _read(job_ids: Sequence[str], kept: Mapping[str, Job], connection: Connection) -> tuple[dict[str, Job], dict[str, Job]]:
    """Those of the jobs that there are, and those of them that had to be read in full."""
    found: dict[str, Job] = {}
    if kept:
        for job_id, *version in connection.execute(_SEEN, {"ids": list(kept)}):
            if tuple(version) == version_of(kept[job_id]):
                found[job_id] = kept[job_id]
    changed = [job_id for job_id in job_ids if job_id not in found]
    fresh = read_jobs(connection, changed) if changed else {}
    return found | fresh, fresh
