"""Limits of tenants, at one front door and at several, on one database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import pytest
from sqlalchemy import Connection

from model_core.errors import StageUnavailable
from service.database.schema import JOBS
from service.identity import limits
from service.identity.allowance import Allowance
from service.identity.limits import TenantLimits
from service.identity.principal import QuotaExceeded
from service.identity.quotas import RESERVED_FOR_S, TenantQuotas
from tests.fakes import ManualClock, eventually
from tests.identities import NOW, CountedDatabase, T, Wall, opened


class Doors:
    """Front doors on one database."""

    def __init__(self, database: CountedDatabase, count: int) -> None:
        self.database, self.clock, self.wall = database, ManualClock(), Wall()
        self.quotas = [TenantQuotas(database, 30.0, self.clock, self.wall) for _ in range(count)]

    @property
    def first(self) -> TenantQuotas:
        return self.quotas[0]

    async def limit(self, tenant: str = "studio", **changes: float | None) -> None:
        await self.database.run(partial(limits.set_limits, tenant=tenant, changes=changes))
        self.database.calls = 0

    async def told(self, tenant: str = "studio") -> TenantLimits:
        return await self.database.run(partial(limits.limits_of, tenant=tenant), write=False)

    async def reserved(self, tenant: str = "studio") -> float:
        return await self.database.run(partial(limits.reserved_seconds, tenant=tenant), write=False)

    async def spent(self, seconds: float) -> None:
        """Wait until so much is settled."""
        async with asyncio.timeout(20):
            while (found := (await self.told()).spent_seconds) != pytest.approx(seconds):
                assert found < seconds + 0.01
                await asyncio.sleep(0.01)

    async def use(self, seconds: float | None, used_s: float, door: int = 0) -> None:
        async with self.quotas[door].session("studio", seconds) as allowance:
            allowance.follow(lambda: used_s, lambda _: None)


@asynccontextmanager
async def doors(url: str, count: int = 1) -> AsyncGenerator[Doors, None]:
    async with opened(url) as database:
        made = Doors(database, count)
        yield made
        for each in made.quotas:
            await each.aclose()


async def refused(quotas: TenantQuotas, seconds: float | None = 1.0, tenant: str = "studio") -> QuotaExceeded:
    with pytest.raises(QuotaExceeded) as caught:
        async with quotas.session(tenant, seconds):
            pass
    return caught.value


async def test_a_tenant_without_limits_costs_one_look_in_a_while(database_url: str) -> None:
    async with doors(database_url) as served:
        for _ in range(100):
            async with served.first.session("nobody", 3600.0) as allowance:
                allowance.follow(lambda: 5.0, lambda _: None)
        assert served.database.calls == 1
        await served.clock.advance(30.0)
        await asyncio.gather(*(served.use(1.0, 1.0) for _ in range(20)))
        assert served.database.calls == 2
        assert await served.told() == TenantLimits()


async def test_seconds_are_reserved_settled_and_released(database_url: str) -> None:
    async with doors(database_url) as served:
        await served.limit(budget_seconds=100.0)
        async with AsyncExitStack() as stack:
            one = await stack.enter_async_context(served.first.session("studio", 60.0))
            one.follow(lambda: 20.0, lambda _: None)
            assert await served.reserved() == 60.0
            error = await refused(served.first, 41.0)
            assert (error.limit, error.allowed, error.used, error.retry_after_s) == ("budget_seconds", 100.0, 60.0, 5.0)
            assert str(error) == (
                "budget_seconds of tenant studio is 100; got a request for 41 s of video, with 0 s spent and 60 s reserved"
            )
            await stack.enter_async_context(served.first.session("studio", 40.0))  # uses nothing
        await served.spent(20.0)
        assert await served.reserved() == 0.0
        await served.use(80.0, 80.0)
        await served.spent(100.0)
        spent = await refused(served.first, 0.1)
        assert (spent.used, spent.retry_after_s) == (100.0, None)
        await served.limit(spent_seconds=0.0)
        await served.use(1.0, 0.0)


async def test_many_starts_at_several_doors_do_not_overspend(database_url: str) -> None:
    async with doors(database_url, 4) as served:
        await served.limit(budget_seconds=50.0, parallel_sessions=100)
        begun: list[Allowance] = []
        async with AsyncExitStack() as stack:

            async def start(number: int) -> None:
                context = served.quotas[number % 4].session("studio", 10.0)
                begun.append(await stack.enter_async_context(context))

            answers = await asyncio.gather(*map(start, range(20)), return_exceptions=True)
            assert len(begun) == 5
            assert sum(isinstance(answer, QuotaExceeded) for answer in answers) == 15
            for allowance in begun:
                allowance.follow(lambda: 10.0, lambda _: None)
        await served.spent(50.0)


async def test_places_are_counted_over_all_doors_and_free_at_once(database_url: str) -> None:
    async with doors(database_url, 2) as served:
        await served.limit(parallel_sessions=1)
        async with served.quotas[0].session("studio", None):
            for quotas in served.quotas:
                error = await refused(quotas)
                assert (error.limit, error.allowed, error.used) == ("parallel_sessions", 1, 1)
                assert error.retry_after_s is not None
        for _ in range(20):  # at the door that had it, without any wait
            await served.use(1.0, 0.0)


async def test_requests_are_counted_in_any_minute_whatever_becomes_of_them(database_url: str) -> None:
    async with doors(database_url, 2) as served:
        await served.limit(requests_per_minute=3)
        await served.use(1.0, 1.0)
        served.wall.now += 20
        await served.use(1.0, 0.0, door=1)
        await served.use(None, 1.0)
        for quotas in served.quotas:
            error = await refused(quotas)
            assert (error.limit, error.allowed, error.used, error.retry_after_s) == ("requests_per_minute", 3, 3, 40.0)
        served.wall.now += 40
        await served.use(1.0, 1.0)
        assert (await refused(served.first)).retry_after_s == 20.0


async def test_a_failed_start_takes_nothing(database_url: str) -> None:
    async with doors(database_url) as served:
        await served.limit(budget_seconds=10.0, parallel_sessions=1)
        for error in (StageUnavailable("no denoiser"), asyncio.CancelledError()):
            with pytest.raises(type(error)):
                async with served.first.session("studio", 10.0):
                    raise error
        await served.use(10.0, 0.0)


async def test_what_a_dead_door_had_reserved_is_free_after_a_minute(database_url: str) -> None:
    async with doors(database_url, 2) as served:
        await served.limit(parallel_sessions=1, budget_seconds=10.0)
        dead = served.quotas[0].session("studio", 10.0)
        await dead.__aenter__()
        served.wall.now += RESERVED_FOR_S - 1
        await refused(served.quotas[1])
        served.wall.now += 1
        await served.use(10.0, 0.0, door=1)
        await dead.__aexit__(None, None, None)


async def test_a_session_that_goes_on_keeps_its_reservation_and_settles_as_it_goes(database_url: str) -> None:
    async with doors(database_url, 2) as served:
        await served.limit(budget_seconds=1000.0, parallel_sessions=1)
        used = 0.0
        async with served.first.session("studio", 600.0) as allowance:
            allowance.follow(lambda: used, lambda _: None)
            for _ in range(8):
                used += 15.0
                served.wall.now += 15
                await eventually(lambda: served.clock.sleepers > 0)
                await served.clock.advance(15.0)
                await served.spent(used)
                assert await served.reserved() == 600.0 - used
            await refused(served.quotas[1])
            used += 7.0
        await served.spent(127.0)


async def test_a_session_without_an_end_stops_when_the_budget_is_spent(database_url: str) -> None:
    async with doors(database_url) as served:
        await served.limit(budget_seconds=100.0)
        used = 0.0
        failures: list[Exception] = []
        async with served.first.session("studio", None) as allowance:
            allowance.follow(lambda: used, failures.append)
            while not failures:
                assert used < 120.0, "at most a renewal's seconds beyond the budget"
                used += 15.0
                served.wall.now += 15
                await eventually(lambda: served.clock.sleepers > 0)
                await served.clock.advance(15.0)
                await served.spent(used)
        [error] = failures
        assert isinstance(error, QuotaExceeded)
        assert error.limit == "budget_seconds"
        assert 100.0 <= used <= 120.0
        await refused(served.first, None)


async def test_what_was_used_while_the_database_was_away_is_settled_later(database_url: str) -> None:
    async with doors(database_url) as served:
        await served.limit(budget_seconds=100.0)
        async with served.first.session("studio", 30.0) as allowance:
            allowance.follow(lambda: 30.0, lambda _: None)
            served.database.away = True
        with pytest.raises(StageUnavailable):
            await served.use(1.0, 1.0)
        served.database.away = False
        await eventually(lambda: served.clock.sleepers > 0)
        await served.clock.advance(1.0)
        await served.clock.advance(15.0)
        await served.spent(30.0)
        assert await served.reserved() == 0.0


async def test_each_write_comes_to_the_same_when_it_runs_again(database_url: str) -> None:
    """The database runs a transaction again when it cannot know whether its commit arrived."""

    class Twice(CountedDatabase):
        async def run(self, work: Callable[[Connection], T], *, write: bool = True, lazy: bool = False) -> T:
            if write:
                await super().run(work, write=write, lazy=lazy)
            return await super().run(work, write=write, lazy=lazy)

    database = await Twice.open(database_url)
    served = Doors(database, 1)
    await served.limit(budget_seconds=100.0, parallel_sessions=2, requests_per_minute=10)
    used = 0.0
    async with served.first.session("studio", None) as allowance:
        allowance.follow(lambda: used, lambda _: None)
        assert await served.reserved() == 60.0
        used = 15.0
        await eventually(lambda: served.clock.sleepers > 0)
        await served.clock.advance(15.0)
        await served.spent(15.0)
        assert await served.reserved() == 60.0
        used = 20.0
    await served.spent(20.0)
    await served.first.aclose()
    assert (await served.told()).spent_seconds == 20.0
    await database.close()


async def test_jobs_reserve_and_settle_in_their_callers_transaction(database_url: str) -> None:
    def put(connection: Connection, job_id: str, status: str) -> None:
        connection.execute(JOBS.insert().values(id=job_id, tenant="studio", status=status))

    async def queue(**seconds: float) -> None:
        await served.database.run(partial(limits.reserve_jobs, tenant="studio", seconds=seconds, now=served.wall()))
        for job_id in seconds:
            await served.database.run(partial(put, job_id=job_id, status="queued"))

    async with doors(database_url) as served:
        await served.database.run(partial(put, job_id="before", status="completed"))
        await queue(unlimited=1e6)
        await served.limit(queued_jobs=4, budget_seconds=10.0, requests_per_minute=4)
        await queue(a=4.0)
        with pytest.raises(QuotaExceeded, match="queued_jobs of tenant studio is 4; got 3 more than the 2 that it has"):
            await queue(b=1.0, c=1.0, d=1.0)
        with pytest.raises(QuotaExceeded, match="got a request for 7 s of video, with 0 s spent and 4 s reserved"):
            await queue(b=3.5, c=3.5)
        await queue(b=3.0, c=2.0)
        assert await served.reserved() == 9.0
        await refused(served.first, 3.0)
        served.wall.now += 1e6
        await refused(served.first, 3.0)  # a job's reservation does not expire
        for _ in range(2):
            await served.database.run(partial(limits.settle, reservation_id="b", spent_s=3.0))
            await served.database.run(partial(limits.settle, reservation_id="c", spent_s=0.0))
        await served.database.run(partial(limits.settle, reservation_id="unlimited", spent_s=1e6))
        assert (await served.told()).spent_seconds == 3.0
        assert await served.reserved() == 4.0
        await served.use(3.0, 0.0)


async def test_a_batch_counts_as_one_request(database_url: str) -> None:
    async with doors(database_url) as served:
        await served.limit(requests_per_minute=2)
        for first in ("a", "b"):
            lengths = {f"{first}{number}": 1.0 for number in range(100)}
            await served.database.run(partial(limits.reserve_jobs, tenant="studio", seconds=lengths, now=NOW))
        error = await refused(served.first)
        assert (error.limit, error.used) == ("requests_per_minute", 2)


async def test_limits_are_set_one_by_one_and_taken_away(database_url: str) -> None:
    async with doors(database_url) as served:
        await served.limit(requests_per_minute=3)
        await served.limit(budget_seconds=5.0)
        assert await served.told() == TenantLimits(requests_per_minute=3, budget_seconds=5.0)
        await served.limit(requests_per_minute=None)
        await served.limit("other", queued_jobs=1)
        found: Mapping[str, TenantLimits] = await served.database.run(limits.all_limits, write=False)
        assert list(found.items()) == [("other", TenantLimits(queued_jobs=1)), ("studio", TenantLimits(budget_seconds=5.0))]
