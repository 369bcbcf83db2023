"""Large bodies are read no faster than they may be, all together, and nobody is blamed for that wait."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from doors.http.bodies import FREE_BYTES, Body, Held
from doors.http.options import HttpOptions
from doors.http.pace import Pace
from model_core.errors import InvalidRequest
from tests.fakes import ManualClock

OPTIONS = HttpOptions(body_timeout_s=10.0, idle_timeout_s=5.0)


class Arriving:
    """ASGI's `receive`, whose parts are there already."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.left = list(sizes)

    async def __call__(self) -> dict[str, object]:
        size = self.left.pop(0)
        return {"type": "http.request", "body": bytes(size), "more_body": bool(self.left)}


def body(receive: Arriving, pace: Pace, clock: ManualClock, options: HttpOptions = OPTIONS) -> Body:
    return Body(receive, declared=None, empty=False, expects=False, options=options, held=Held(10**9), pace=pace, clock=clock)


def test_what_a_quarter_of_a_second_brings_goes_at_once_and_the_rest_at_the_rate() -> None:
    clock = ManualClock()
    pace = Pace(1000.0, clock)
    assert [pace.take(size) for size in (250, 100, 400)] == pytest.approx([0.0, 0.1, 0.5])


async def test_a_pause_earns_no_more_than_a_quarter_of_a_second() -> None:
    clock = ManualClock()
    pace = Pace(1000.0, clock)
    await clock.advance(3600.0)
    assert pace.take(1250) == pytest.approx(1.0)
    await clock.advance(0.5)
    assert pace.take(100) == pytest.approx(0.6)


async def test_all_bodies_together_keep_the_rate() -> None:
    clock = ManualClock()
    pace, part = Pace(FREE_BYTES, clock), FREE_BYTES // 4
    # Each has a second of bytes beyond those that are free; the first quarter of a second of them all is free too.
    reading = [asyncio.create_task(body(Arriving([FREE_BYTES, *[part] * 4, 0]), pace, clock).read()) for _ in range(3)]
    for _ in range(11):
        await clock.advance(0.24)
    assert not all(task.done() for task in reading)
    for _ in range(2):
        await clock.advance(0.24)
    assert [len(await task) for task in reading] == [2 * FREE_BYTES] * 3


async def test_a_small_body_is_not_held_up_by_large_ones() -> None:
    clock = ManualClock()
    pace = Pace(1000.0, clock)
    pace.take(10**9)
    assert len(await body(Arriving([FREE_BYTES]), pace, clock).read()) == FREE_BYTES


async def test_a_caller_is_not_late_because_it_was_held_up() -> None:
    clock = ManualClock()
    pace, options = Pace(FREE_BYTES, clock), replace(OPTIONS, body_timeout_s=2.0)
    reading = asyncio.create_task(body(Arriving([*[FREE_BYTES] * 6, 0]), pace, clock, options).read())
    for _ in range(6):
        await clock.advance(1.0)
    assert len(await reading) == 6 * FREE_BYTES


async def test_a_caller_is_late_by_itself() -> None:
    clock = ManualClock()

    class Slow(Arriving):
        async def __call__(self) -> dict[str, object]:
            await clock.sleep(0.9)
            return await super().__call__()

    pace, options = Pace(FREE_BYTES, clock), replace(OPTIONS, body_timeout_s=2.0)
    reading = asyncio.create_task(body(Slow([*[FREE_BYTES] * 6, 0]), pace, clock, options).read())
    for _ in range(12):
        await clock.advance(1.0)
    with pytest.raises(InvalidRequest, match="must arrive within 2 s"):
        await reading
