"""Jobs in the metrics of a front door: how long the queue is, and what became of jobs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from sqlalchemy import Connection, func, select

from model_core.errors import StageUnavailable
from observability.metrics import JobMetrics
from service.clock import Clock
from service.database.engine import Database, after_commit
from service.database.schema import JOBS
from service.jobs.job import Job, JobStatus, Tier
from service.jobs.table.ends import QUEUED
from service.jobs.work import EndedJob

log = logging.getLogger(__name__)


class JobCounts:
    """Counts jobs as they are begun and end. `metrics`: where to count."""

    def __init__(self, metrics: JobMetrics) -> None:
        self._metrics = metrics

    def begun(self, job: Job) -> None:
        """A worker of this front door has begun `job`. One that was begun before has waited already."""
        if job.attempts == 1 and job.started_at is not None:
            self._metrics.wait_seconds.observe(max(0.0, job.started_at - job.created_at))

    def on_end(self, connection: Connection, ended: EndedJob) -> None:
        """`service.jobs.work.OnEnd`."""
        after_commit(connection, partial(self._count, ended.job))

    def _count(self, job: Job) -> None:
        self._metrics.ended_total.labels(job.door, job.status.value).inc()
        if job.status is not JobStatus.COMPLETED:
            return
        if job.started_at is not None and job.ended_at is not None:
            self._metrics.seconds.observe(max(0.0, job.ended_at - job.started_at))
        if job.usage is not None:
            self._metrics.video_seconds_total.labels(job.door).inc(job.usage.video_s)


class QueueGauge:
    """Looks at the queue now and then. Several front doors may do so at once, and see the same.

    Args:
        database: where the table is.
        metrics: where to show it.
        clock: between two looks.
        now: Unix time.
    """

    def __init__(self, database: Database, metrics: JobMetrics, clock: Clock, now: Callable[[], float]) -> None:
        self._database, self._metrics, self._clock, self._now = database, metrics, clock, now

    async def run(self, every_s: float) -> None:
        """Look until cancelled. While the database is away, the figures stay as they were."""
        while True:
            try:
                await self.once()
            except StageUnavailable as error:
                log.info("the queue of jobs is not counted: %s", error)
            await self._clock.sleep(every_s)

    async def once(self) -> None:
        """Raises StageUnavailable: the database does not answer."""
        queued, oldest_at = await self._database.run(_queue, write=False)
        self._metrics.queued.set(queued)
        self._metrics.oldest_queued_seconds.set(0.0 if oldest_at is None else max(0.0, self._now() - oldest_at))


def _queue(connection: Connection) -> tuple[int, float | None]:
    """Jobs in the queue, and when the oldest was made. It finds them by the index of queued jobs."""
    # With the tiers, which are all, or SQLite reads the index of all jobs by tenant.
    waiting = (JOBS.c.status == QUEUED, JOBS.c.tier.in_([tier.value for tier in Tier]))
    queued, oldest_at = connection.execute(select(func.count(), func.min(JOBS.c.created_at)).where(*waiting)).one()
    return queued, oldest_at
