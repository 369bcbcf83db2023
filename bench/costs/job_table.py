"""What the job table costs when it is full: `python -m bench.costs.job_table` (`make job-table`); exit code 1 beyond a bound.

10,000 jobs of 100 tenants are queued, on SQLite and, where it is installed, on PostgreSQL. Then, one after the other:

    claim    one job at a time, each completed after the next is claimed, so that some are running and some are done
    list     pages of 20, of all tenants in turn, with and without filters, from the beginning and from the middle
    cpu      of this process, for a claim, a completion and a list together
    poll     so many callers ask for their job once a second, through a desk; the share of a core that this process spends
    memory   of this process, before and after claims and lists
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import os
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from bench.kit.postgres import WITHOUT_POSTGRES, Postgres, server_programs
from bench.kit.tally import quantile
from model_core.presets import DEFAULT_MODEL, millrace_64
from service.checks import Catalogue, Limits, Validator
from service.clock import MonotonicClock
from service.database.engine import Database
from service.database.schema import JOBS
from service.events import Usage
from service.identity.principal import Principal
from service.jobs.desk.drafts import JobChecks
from service.jobs.desk.table_desk import TableDesk
from service.jobs.job import Content, Job, JobQuery, JobStatus, NewJob, Variant
from service.jobs.table.store import JobStore
from service.jobs.work import Finished, JobPolicy
from service.orders import Doorway, Mode, VideoRequest

BOUNDS = {"claim_p99_ms": 20.0, "list_p99_ms": 20.0, "poll_percent_of_a_core": 15.0, "memory_growth_mib": 8.0}
TENANTS = 100
_LEASE_S = 60.0
_RUNNING = 16
_FINISHED = Finished(size_bytes=100_000, sha256="0" * 64, usage=Usage(fps=24, frames=96))


class NoFiles:
    """A `JobFiles` for jobs that have no upload and whose result nobody fetches."""

    async def put_upload(self, job_id: str, data: bytes) -> str:
        raise RuntimeError(f"job {job_id} must have no upload here; got {len(data)} bytes")

    async def content(self, job: Job, variant: Variant) -> Content:
        raise RuntimeError(f"nobody fetches the {variant.value} of job {job.id} here")

    async def remove(self, job_id: str, *, keep_result: bool = False) -> None: ...

    async def unchanged_since(self, before: float) -> list[str]:
        return []


def resident_mib() -> float:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def timed_ms(times: int, call: Callable[[int], Awaitable[object]]) -> list[float]:
    """How long each of some calls took, one after the other."""
    took = []
    for number in range(times):
        started = time.perf_counter()
        await call(number)
        took.append(1000 * (time.perf_counter() - started))
    return took


class Filled:
    """A full table, with a desk and a store over it."""

    def __init__(self, database: Database) -> None:
        config, policy = millrace_64(), JobPolicy()
        self.database = database
        validator = Validator(Catalogue({config.name: config}, DEFAULT_MODEL), Limits())
        self.checks = JobChecks(validator, policy, partial(secrets.randbits, 64))
        self.desk = TableDesk(database, NoFiles(), self.checks, MonotonicClock(), time.time, partial(secrets.token_hex, 6))
        self.store = JobStore(database, policy, time.time)
        self.ids: list[tuple[Principal, str]] = []

    async def fill(self, jobs: int) -> None:
        rows: list[dict[str, Any]] = []
        now = time.time() - jobs
        for number in range(jobs):
            principal = Principal(tenant=f"tenant-{number % TENANTS}")
            request = VideoRequest(prompt=f"a red ball rolls to the left, take {number}", seconds=4.0)
            new = NewJob(door="openai" if number % 3 else "runway", request=request, doorway=Doorway(Mode.FILE), labels={"n": f"{number}"})
            draft = self.checks.draft(principal, new, secrets.token_hex(6))
            rows.append(draft.row(now + number, "", None))
            self.ids.append((principal, draft.id))

        def insert(connection: Connection) -> None:
            connection.execute(JOBS.insert(), rows)

        await self.database.run(insert)
        gc.collect()
        gc.freeze()  # what this program keeps is no part of what is measured

    async def claims(self, times: int) -> list[float]:
        running: list[tuple[str, int]] = []

        async def claim(_: int) -> None:
            running.extend((each.job.id, each.fence) for each in await self.store.claim("bench", time.time(), _LEASE_S, 1))

        took = []
        for _ in range(times):
            took += await timed_ms(1, claim)
            if len(running) > _RUNNING:
                job_id, fence = running.pop(0)
                await self.store.complete(job_id, fence, _FINISHED)
        return took

    async def lists(self, times: int) -> list[float]:
        queries = itertools.cycle(
            (
                JobQuery(),
                JobQuery(limit=20, ascending=True),
                JobQuery(door="runway"),
                JobQuery(statuses=frozenset({JobStatus.COMPLETED})),
                JobQuery(after="middle"),
            )
        )

        async def page(number: int) -> None:
            principal, middle = self.ids[(number * 37) % len(self.ids)]
            query = next(queries)
            await self.desk.list(principal, JobQuery(after=middle) if query.after else query)

        return await timed_ms(times, page)

    async def polls(self, callers: int, seconds: float) -> float:
        """Percent of a core."""

        async def caller(number: int) -> None:
            principal, job_id = self.ids[number]
            await asyncio.sleep(number / callers)
            for turn in range(int(seconds)):
                await self.desk.get(principal, job_id)
                await asyncio.sleep(max(0.0, started + number / callers + turn + 1 - time.perf_counter()))

        cpu, started = time.process_time(), time.perf_counter()
        await asyncio.gather(*(caller(number) for number in range(callers)))
        return 100 * (time.process_time() - cpu) / (time.perf_counter() - started)


async def measure(url: str, options: argparse.Namespace) -> dict[str, float]:
    database = await Database.open(url)
    filled = Filled(database)
    await filled.fill(options.jobs)
    await filled.claims(50)
    await filled.lists(50)
    before_mib = resident_mib()
    cpu = time.process_time()
    claims, lists = await filled.claims(options.times), await filled.lists(options.times)
    cpu_ms = 1000 * (time.process_time() - cpu) / options.times
    grown_mib = resident_mib() - before_mib
    percent = await filled.polls(options.callers, options.seconds)
    await filled.desk.aclose()
    await database.close()
    found = {f"{name}_p{round(100 * q)}_ms": quantile(took, q) for name, took in (("claim", claims), ("list", lists)) for q in (0.5, 0.99)}
    return found | {"claim_complete_list_cpu_ms": cpu_ms, "poll_percent_of_a_core": percent, "memory_growth_mib": grown_mib}


@asynccontextmanager
async def databases() -> AsyncGenerator[dict[str, str], None]:
    """URLs of empty databases, by kind."""
    with tempfile.TemporaryDirectory() as folder:
        urls = {"sqlite": f"sqlite:///{folder}/headrace.db"}
        programs = server_programs()
        if programs is None:
            print(WITHOUT_POSTGRES)
            yield urls
            return
        server = Postgres(programs)
        try:
            yield urls | {"postgresql": server.fresh()}
        finally:
            server.close()


async def run(options: argparse.Namespace) -> bool:
    beyond = False
    async with databases() as urls:
        for kind, url in urls.items():
            found = await measure(url, options)
            print(json.dumps({"database": kind, "jobs": options.jobs} | {name: round(value, 2) for name, value in found.items()}))
            for name, bound in BOUNDS.items():
                if found[name] > bound:
                    beyond = True
                    print(f"{kind}: {name} is {found[name]:.2f}, of at most {bound:g}")
    return beyond


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000, help="queued")
    parser.add_argument("--times", type=int, default=1000, help="claims, and lists")
    parser.add_argument("--callers", type=int, default=1000, help="that poll once a second")
    parser.add_argument("--seconds", type=float, default=10, help="of polling")
    sys.exit(asyncio.run(run(parser.parse_args())))


if __name__ == "__main__":
    main()
