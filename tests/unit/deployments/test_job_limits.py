"""What jobs reserve of their tenant's limits, and give back, with the desk and the table of jobs as a front door has them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from deployments.replicas.identity import Identity
from service.identity import limits
from service.identity.allowance import NoQuotas
from service.identity.job_limits import JobLimits
from service.identity.open_door import OpenDoor
from service.identity.peers import Proxies
from service.identity.principal import QuotaExceeded
from service.jobs.job import JobError, JobStatus
from tests.identities import CountedDatabase, sqlite
from tests.jobs import ALICE, BOB, FINISHED, Jobs, Wall, new_job


def made(database: CountedDatabase) -> Jobs:
    wall = Wall()
    identity = Identity(OpenDoor(Proxies(), wall), NoQuotas(), job_limits=JobLimits(wall))
    return Jobs(database, quotas=identity.job_limits, told=[identity.job_ended])


async def told(database: CountedDatabase) -> tuple[float, float]:
    """Seconds spent, and seconds reserved, of Alice's tenant."""
    spent = await database.run(partial(limits.limits_of, tenant="alice"), write=False)
    return spent.spent_seconds, await database.run(partial(limits.reserved_seconds, tenant="alice"), write=False)


async def test_a_job_pays_when_it_is_completed_and_for_nothing_else(tmp_path: Path) -> None:
    async with sqlite(tmp_path) as database:
        jobs = made(database)
        await database.run(partial(limits.set_limits, tenant="alice", changes={"budget_seconds": 12.0, "queued_jobs": 2}))
        completed, fence = await jobs.running()
        failed, other = await jobs.running()
        waiting = await jobs.desk.submit(ALICE, new_job())
        assert await told(database) == (0.0, 12.0)
        with pytest.raises(
            QuotaExceeded, match="budget_seconds of tenant alice is 12; got a request for 4 s of video, with 0 s spent and 12 s"
        ):
            await jobs.desk.submit(ALICE, new_job())
        await jobs.desk.submit(BOB, new_job())
        await jobs.store.complete(completed, fence, FINISHED)
        await jobs.store.fail(failed, other, JobError("internal", "a defect"))
        assert (await jobs.desk.cancel(ALICE, waiting.id)).status is JobStatus.CANCELLED
        assert await told(database) == (4.0, 0.0)
        for _ in range(2):
            await jobs.desk.submit(ALICE, new_job())
        with pytest.raises(QuotaExceeded, match="queued_jobs of tenant alice is 2; got 1 more than the 2 that it has"):
            await jobs.desk.submit(ALICE, new_job())
        assert await told(database) == (4.0, 8.0)


async def test_a_batch_is_queued_whole_or_not_at_all(tmp_path: Path) -> None:
    async with sqlite(tmp_path) as database:
        jobs = made(database)
        await database.run(partial(limits.set_limits, tenant="alice", changes={"budget_seconds": 8.0}))
        with pytest.raises(QuotaExceeded):
            await jobs.desk.submit_batch(ALICE, [new_job(), new_job(), new_job()])
        assert await told(database) == (0.0, 0.0)
        await jobs.desk.submit_batch(ALICE, [new_job(), new_job()])
        assert await told(database) == (0.0, 8.0)


async def test_the_same_request_again_reserves_nothing_more(tmp_path: Path) -> None:
    async with sqlite(tmp_path) as database:
        jobs = made(database)
        await database.run(partial(limits.set_limits, tenant="alice", changes={"budget_seconds": 100.0}))
        for _ in range(3):
            await jobs.desk.submit(ALICE, new_job(idempotency_key="once"))
        assert await told(database) == (0.0, 4.0)
