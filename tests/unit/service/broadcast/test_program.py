"""What goes out, and when: superseded frames, late ones, pauses, slow receivers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from model_core.access_units import Group
from model_core.errors import InvalidRequest
from model_core.types import Codec
from service.broadcast.playout import Playout
from service.broadcast.program import Program
from service.broadcast.queue import GroupQueue
from service.events import Ended, EndReason, Paused, PromptApplied, Usage
from tests.broadcasts import CHUNK, FPS, frames, group, started
from tests.fakes import ManualClock, eventually

CHUNK_S = CHUNK / FPS


def test_groups_go_out_as_they_are_played() -> None:
    playout = Playout(FPS, hold_s=1.0)
    for first in (16, 24, 32):
        playout.arrived(group(first), 100.0)
    assert playout.due(100.9) == []
    assert playout.wait_s(100.9) == pytest.approx(0.1)
    assert [g.first_frame for g in playout.due(101.0)] == [16]
    assert [g.first_frame for g in playout.due(101.0 + 2 * CHUNK_S + 1e-9)] == [24, 32]
    assert playout.wait_s(200.0) is None
    assert (playout.next_frame, playout.stalled_s) == (40, 0.0)


def test_what_waits_is_replaced_and_what_is_out_stays() -> None:
    playout = Playout(FPS)
    for first in (0, 8, 16, 24):
        playout.arrived(group(first, shade=10), 0.0)
    assert [g.first_frame for g in playout.due(CHUNK_S + 1e-9)] == [0, 8]
    playout.superseded(8)
    for first in (8, 16):
        playout.arrived(group(first, shade=200), CHUNK_S)
    out = playout.due(1.0)
    assert out == [group(16, shade=200)]
    assert playout.dropped == CHUNK


def test_frames_may_be_replaced_that_are_not_out_soon() -> None:
    playout = Playout(FPS)
    assert playout.replaceable(0.0, 0.0) is None
    playout.arrived(group(0), 0.0)
    playout.due(0.0)
    assert playout.replaceable(0.0, 0.0) == 8
    assert playout.replaceable(1.0, 0.5) == 37


def test_a_session_that_is_late_moves_what_follows_and_not_the_numbers_of_frames() -> None:
    playout = Playout(FPS)
    playout.arrived(group(0), 0.0)
    playout.due(0.0)
    playout.arrived(group(8), 5.0)
    playout.arrived(group(16), 5.0)
    assert [g.first_frame for g in playout.due(5.0)] == [8]
    assert playout.wait_s(5.0) == pytest.approx(CHUNK_S)
    assert playout.stalled_s == pytest.approx(5.0 - CHUNK_S)


def test_a_pause_is_no_stall() -> None:
    playout = Playout(FPS)
    playout.arrived(group(0), 0.0)
    playout.due(0.0)
    playout.paused()
    playout.arrived(group(8), 60.0)
    assert playout.due(60.0) == [group(8)]
    assert playout.stalled_s == 0.0


def test_what_waits_is_bounded() -> None:
    playout = Playout(FPS, hold_s=1e9)
    one = group(0)
    for n in range(600):
        playout.arrived(Group(n * CHUNK, one.units, one.fragment), 0.0)
    assert len(playout.due(0.0)) == 600 - 512


async def test_a_receiver_that_takes_nothing_goes_on_at_a_later_key_picture() -> None:
    queue = GroupQueue(most_groups=3)
    for first in range(0, 80, 8):
        queue.put(group(first))
    assert queue.dropped == 7 * CHUNK
    got = await queue.get()
    assert got is not None
    assert (got.first_frame, got.units[0].key) == (56, True)
    queue.skip()
    queue.close()
    queue.put(group(80))
    assert [g and g.first_frame for g in (await queue.get(), await queue.get())] == [72, None]


async def test_bytes_are_bounded_and_one_group_is_always_kept() -> None:
    queue = GroupQueue(most_bytes=1)
    queue.put(group(0))
    queue.put(group(8))
    assert (len(queue), queue.dropped) == (1, CHUNK)


@asynccontextmanager
async def running(hold_s: float = 0.0) -> AsyncGenerator[tuple[Program, ManualClock]]:
    clock = ManualClock()
    program = Program(clock, hold_s)
    task = asyncio.create_task(program.run())
    try:
        yield program, clock
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_session_with_a_prompt_and_a_pause_is_one_row_of_frames_for_each_receiver() -> None:
    async with running(hold_s=0.5) as (program, clock):
        with program.receiving() as early:
            program.see(started())
            assert (await program.begun()) is program.header
            for first in (0, 8, 16):
                program.see(frames(first, shade=10))
            await clock.advance(0.5)
            await eventually(lambda: len(early) == 1)
            program.see(PromptApplied("another", 8, 1, 1))
            program.see(frames(8, shade=200))
            program.see(Paused(16))
            await clock.advance(CHUNK_S + 0.001)
            with program.receiving() as late:
                await clock.advance(60.0)
                program.see(frames(16, shade=200))
                program.see(Ended(EndReason.STOPPED, Usage(fps=FPS)))
                await clock.advance(60.0)
                rows = [[g async for g in _rest(queue)] for queue in (early, late)]
    assert rows[0] == [group(0, shade=10), group(8, shade=200), group(16, shade=200)]
    assert rows[1] == [group(16, shade=200)]


async def _rest(queue: GroupQueue) -> AsyncGenerator[Group]:
    while (found := await queue.get()) is not None:
        yield found


async def test_other_codecs_cannot_go_out() -> None:
    async with running() as (program, _):
        with pytest.raises(InvalidRequest, match="codec: must be fmp4 for a session that is broadcast; got jpeg"):
            program.see(started(codec=Codec.JPEG))


async def test_whoever_comes_after_the_end_is_told_so() -> None:
    async with running() as (program, _):
        program.see(Ended(EndReason.STOPPED, Usage(fps=FPS)))
        assert await program.begun() is None
        await eventually(lambda: program.over)
        with program.receiving() as queue:
            assert await queue.get() is None
