"""What is remembered, for how long, and how many ask at once."""

from __future__ import annotations

import asyncio

import pytest

from service.identity.remembered import Lookup, Remembered
from tests.fakes import ManualClock


class Asked:
    """A question that a test answers."""

    def __init__(self) -> None:
        self.count = 0
        self.error: Exception | None = None
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, key: str) -> str:
        self.count += 1
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return key.upper()


async def passed(clock: ManualClock, seconds: float) -> None:
    await clock.advance(seconds)


async def test_an_answer_counts_for_its_time_and_no_longer() -> None:
    clock, asked = ManualClock(), Asked()
    lookup: Lookup[str, str] = Lookup(asked, Remembered(30.0, 8, clock))
    assert await lookup.get("a") == await lookup.get("a") == "A"
    assert asked.count == 1
    await passed(clock, 29.0)
    await lookup.get("a")
    assert asked.count == 1
    lookup.amend("a", "B")
    assert await lookup.get("a") == "B"
    await passed(clock, 1.0)
    assert await lookup.get("a") == "A", "an amended answer does not last longer"
    assert asked.count == 2


async def test_the_memory_is_bounded() -> None:
    clock = ManualClock()
    memory: Remembered[int, int] = Remembered(30.0, 100, clock)
    for number in range(1000):
        memory.put(number, number)
    assert len(memory) == 100
    assert memory.get(999) == 999
    assert memory.get(0) is None
    await passed(clock, 31.0)
    memory.put(-1, -1)
    assert len(memory) == 1


async def test_all_who_ask_at_once_share_one_question() -> None:
    asked = Asked()
    asked.go.clear()
    lookup: Lookup[str, str] = Lookup(asked, Remembered(30.0, 8, ManualClock()))
    waiting = [asyncio.create_task(lookup.get("a")) for _ in range(50)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    asked.go.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert asked.count == 1
    assert isinstance(answers[0], asyncio.CancelledError)
    assert answers[1:] == ["A"] * 49


async def test_an_error_is_told_to_all_and_not_remembered() -> None:
    asked = Asked()
    asked.error = OSError("away")
    lookup: Lookup[str, str] = Lookup(asked, Remembered(30.0, 8, ManualClock()))
    with pytest.raises(OSError, match="away"):
        await lookup.get("a")
    asked.error = None
    assert await lookup.get("a") == "A"
