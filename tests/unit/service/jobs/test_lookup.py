"""Many questions, few queries."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from model_core.errors import StageUnavailable
from service.jobs.desk.lookup import Lookup
from service.jobs.job import Job, JobStatus
from tests.fakes import ManualClock

JOB = Job(
    id="a", tenant="t", door="d", status=JobStatus.QUEUED, model="m", prompt="p", seconds=1.0, seed=1, steps=4, width=64, height=64, fps=24,
    created_at=1.0, updated_at=1.0,
)  # fmt: skip


class Table:
    """Jobs `a` and `b`, and the queries that came. `gate` holds a query up; `down` lets all of them fail."""

    def __init__(self) -> None:
        self.queries: list[list[str]] = []
        self.jobs = {"a": JOB, "b": replace(JOB, id="b")}
        self.gate = asyncio.Event()
        self.gate.set()
        self.down = False

    async def read(self, ids: Sequence[str]) -> dict[str, Job]:
        self.queries.append(list(ids))
        await self.gate.wait()
        if self.down:
            raise StageUnavailable("the database does not answer")
        return {job_id: self.jobs[job_id] for job_id in ids if job_id in self.jobs}


async def test_the_first_is_answered_at_once_and_those_after_it_together() -> None:
    table, clock = Table(), ManualClock()
    lookup = Lookup(table.read, clock, spacing_s=1.0)
    assert await lookup.get("a") == JOB
    asked = [asyncio.create_task(lookup.get(job_id)) for job_id in ("a", "b", "a", "missing")]
    await clock.advance(0.5)
    assert not any(task.done() for task in asked)
    await clock.advance(0.5)
    assert [None if job is None else job.id for job in await asyncio.gather(*asked)] == ["a", "b", "a", None]
    assert table.queries == [["a"], ["a", "b", "missing"]]
    await clock.advance(5.0)
    assert await lookup.get("b") == table.jobs["b"]
    await lookup.aclose()


async def test_an_answer_is_newer_than_its_question() -> None:
    """A question that comes while a query is under way is not answered by it."""
    table, clock = Table(), ManualClock()
    lookup = Lookup(table.read, clock, spacing_s=1.0)
    table.gate.clear()
    before = asyncio.create_task(lookup.get("a"))
    await clock.advance(0.0)
    after = asyncio.create_task(lookup.get("a"))
    await clock.advance(0.0)
    table.gate.set()
    assert await before == JOB
    table.jobs["a"] = replace(JOB, status=JobStatus.RUNNING)
    await clock.advance(1.0)
    assert await after == table.jobs["a"]
    await lookup.aclose()


async def test_a_failed_query_fails_its_callers_and_no_later_ones() -> None:
    table, clock = Table(), ManualClock()
    lookup = Lookup(table.read, clock, spacing_s=0.0)
    table.down = True
    found = await asyncio.gather(lookup.get("a"), lookup.get("b"), return_exceptions=True)
    assert [type(each) for each in found] == [StageUnavailable] * 2
    table.down = False
    assert await lookup.get("a") == JOB
    await lookup.aclose()


async def test_a_caller_that_leaves_takes_nobody_with_it() -> None:
    table, clock = Table(), ManualClock()
    lookup = Lookup(table.read, clock, spacing_s=0.0)
    table.gate.clear()
    leaves, stays = (asyncio.create_task(lookup.get("a")) for _ in range(2))
    await clock.advance(0.0)
    leaves.cancel()
    await clock.advance(0.0)
    table.gate.set()
    assert await stays == JOB
    with pytest.raises(asyncio.CancelledError):
        await leaves
    await lookup.aclose()


async def test_to_close_ends_those_that_wait() -> None:
    table, clock = Table(), ManualClock()
    lookup = Lookup(table.read, clock, spacing_s=1.0)
    table.gate.clear()
    under_way = asyncio.create_task(lookup.get("a"))
    await clock.advance(0.0)
    behind = asyncio.create_task(lookup.get("b"))
    await clock.advance(0.0)
    await lookup.aclose()
    for task in (under_way, behind):
        with pytest.raises(asyncio.CancelledError):
            await task
