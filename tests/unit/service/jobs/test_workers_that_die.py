"""Workers of two front doors that die, pause and come back at random: each job ends once, by the worker that has it."""

from __future__ import annotations

import random

from service.database.engine import Database
from service.jobs.job import JobQuery, JobStatus
from service.jobs.table.store import JobStore
from service.jobs.work import Checkpoint, ClaimedJob, JobPolicy, LeaseLost
from tests.jobs import ALICE, BOB, FINISHED, LEASE_S, Jobs, new_job

FRAMES = 96
JOBS = 12


class Worker:
    """Works on one job at a time. What it believes of the job may be long outdated."""

    def __init__(self, store: JobStore, jobs: Jobs, chance: random.Random) -> None:
        self.store, self.jobs, self.chance = store, jobs, chance
        self.claimed: ClaimedJob | None = None
        self.frames = 0
        self.refused = 0

    async def step(self) -> None:
        if self.claimed is None:
            got = await self.store.claim("w", self.jobs.wall(), LEASE_S, 1)
            if got:
                (self.claimed,) = got
                self.frames = self.claimed.checkpoint.next_frame if self.claimed.checkpoint else 0
            return
        job_id, fence = self.claimed.job.id, self.claimed.fence
        try:
            match self.chance.randrange(6):
                case 0:
                    self.claimed = None  # dies, without a word
                case 1:
                    await self.store.release(job_id, fence)
                    self.claimed = None
                case 2 | 3 | 4:
                    self.frames = min(FRAMES, self.frames + 24)
                    await self.store.checkpoint(job_id, fence, Checkpoint((), "r", self.frames))
                    beat = await self.store.beat(job_id, fence, LEASE_S, self.frames)
                    if beat.cancelling:
                        await self.store.cancelled(job_id, fence)
                        self.claimed = None
                case _ if self.frames == FRAMES:
                    await self.store.complete(job_id, fence, FINISHED)
                    self.claimed = None
        except LeaseLost:
            self.refused += 1
            self.claimed = None


async def test_each_job_ends_once(database: Database, database_url: str) -> None:
    chance = random.Random(1)
    jobs = Jobs(database, JobPolicy(max_lost=1000))
    made = [(await jobs.desk.submit(chance.choice((ALICE, BOB)), new_job(f"{number}"))).id for number in range(JOBS)]
    other = await Database.open(database_url, threads=1, timeout_s=60.0)
    stores = (jobs.store, JobStore(other, jobs.policy, jobs.wall, jobs.ends))
    workers = [Worker(store, jobs, chance) for store in stores * 2]
    cancelled: set[str] = set()
    progress = dict.fromkeys(made, 0)
    for turn in range(2000):
        await chance.choice(workers).step()
        jobs.wall.at += chance.choice((0.1, 1.0, LEASE_S / 2, LEASE_S + 1)) if turn % 5 == 0 else 0.1
        if turn == 20:
            for principal in (ALICE, BOB):
                for job in (await jobs.desk.list(principal, JobQuery(limit=2))).jobs:
                    await jobs.desk.cancel(principal, job.id)
                    cancelled.add(job.id)
        if turn % 20 == 0:
            found = await jobs.store.read(made)
            assert all(found[job_id].frames_done >= progress[job_id] for job_id in made)
            progress = {job_id: found[job_id].frames_done for job_id in made}
            if all(job.status.over for job in found.values()):
                break
    found = await jobs.store.read(made)
    await other.close()
    ended = [each.job.id for each in jobs.ends.seen]
    assert sorted(ended) == sorted(made)
    assert sum(worker.refused for worker in workers) > 0  # those that came back too late
    for job in found.values():
        assert job.status is JobStatus.COMPLETED or (job.status is JobStatus.CANCELLED and job.id in cancelled)
