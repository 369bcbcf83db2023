"""What callers are told of their tenant's limit of requests, with every answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from service.identity import limits
from service.identity.job_limits import JobLimits
from service.identity.principal import Caller, Means, Principal, Unauthenticated
from service.identity.quotas import TenantQuotas
from service.identity.standings import RequestsLeft, Standings
from tests.fakes import ManualClock
from tests.http_served import HttpServed, OpenAuthority, http_serving
from tests.identities import sqlite
from tests.jobs import Jobs, Wall

PROMPT = {"prompt": "a red circle", "seconds": 0.1}


class Keys(OpenAuthority):
    async def by_secret(self, presented: str, caller: Caller) -> Principal:
        if not presented.startswith("key-of-"):
            raise Unauthenticated("the key is not known")
        return Principal(tenant=presented.removeprefix("key-of-"), subject="key-1", means=Means.KEY)


@dataclass(frozen=True, slots=True)
class Limited:
    served: HttpServed
    clock: ManualClock
    wall: Wall

    async def pass_time(self, seconds: float) -> None:
        self.wall.at += seconds
        await self.clock.advance(seconds)

    async def post(self, path: str, tenant: str = "acme") -> httpx.Response:
        return await self.served.client.post(path, json=PROMPT, headers={"x-api-key": f"key-of-{tenant}"})


@asynccontextmanager
async def limited(folder: Path) -> AsyncGenerator[Limited, None]:
    """A server where the tenant `acme` may make three requests a minute."""
    async with sqlite(folder) as database:
        clock, wall = ManualClock(), Wall()
        await database.run(partial(limits.set_limits, tenant="acme", changes={"requests_per_minute": 3}))
        standings = Standings(clock, wall)
        jobs = Jobs(database, quotas=JobLimits(wall), counted=standings.note)
        quotas = TenantQuotas(database, 30.0, clock, wall, standings=standings)
        async with http_serving(authority=Keys(), quotas=quotas, standings=standings, jobs=lambda _: jobs.desk) as served:
            yield Limited(served, clock, wall)
        await quotas.aclose()


def told(answer: httpx.Response) -> tuple[str | None, ...]:
    return tuple(answer.headers.get(f"x-ratelimit-{name}-requests") for name in ("limit", "remaining", "reset"))


async def test_sessions_and_jobs_are_told_what_is_left(tmp_path: Path) -> None:
    async with limited(tmp_path) as door:
        stream = await door.post("/v1/stream")
        assert (stream.status_code, told(stream)) == (200, ("3", "2", "60"))
        await door.pass_time(10.0)
        job = await door.post("/v1/jobs")
        assert (job.status_code, told(job)) == (201, ("3", "1", "50"))
        looked = await door.served.client.get("/v1/jobs", headers={"x-api-key": "key-of-acme"})
        assert (looked.status_code, told(looked)) == (200, ("3", "1", "50"))
        video = await door.post("/v1/videos")
        assert (video.status_code, told(video)) == (200, ("3", "0", "50"))
        refused = await door.post("/v1/stream")
        assert (refused.status_code, told(refused)) == (429, ("3", "0", "50"))
        await door.pass_time(50.0)
        assert told(await door.post("/v1/stream")) == ("3", "0", "10"), "the first one counts no more"


async def test_a_batch_is_one_request(tmp_path: Path) -> None:
    async with limited(tmp_path) as door:
        rows = b'{"prompt": "a"}\n{"prompt": "b"}\n'
        headers = {"x-api-key": "key-of-acme", "content-type": "application/jsonl"}
        answer = await door.served.client.post("/v1/batches", content=rows, headers=headers)
        assert (answer.status_code, told(answer)) == (201, ("3", "2", "60"))


async def test_tenants_without_such_a_limit_and_strangers_are_told_nothing(tmp_path: Path) -> None:
    async with limited(tmp_path) as door:
        await door.post("/v1/stream")
        for answer in (await door.post("/v1/stream", "other"), await door.served.client.get("/healthz")):
            assert (answer.status_code, told(answer)) == (200, (None, None, None))
        stranger = await door.served.client.get("/v1/models", headers={"x-api-key": "unknown"})
        assert (stranger.status_code, told(stranger)) == (401, (None, None, None))


async def test_what_was_heard_is_forgotten_when_it_is_no_longer_true() -> None:
    clock, wall = ManualClock(), Wall()
    standings = Standings(clock, wall)
    left = RequestsLeft(3, 1, wall.at + 20.0)
    standings.note("acme", left)
    assert standings.of("acme") == (left, 20.0)
    assert standings.of("other") is None
    wall.at += 20.0
    await clock.advance(20.0)
    assert standings.of("acme") is None
