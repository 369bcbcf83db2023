"""One viewer who steers without rest has the work done that it was admitted for and half as much again; nobody else is late for it.

Real sessions with real pacing share one device, which forwards rows as the real scheduler says, in time that a test moves.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

import numpy as np
import pytest

from model_core.engine.step_scheduler import RowView, StepCosts, schedule
from model_core.pipeline import Paused, PromptApplied, Resumed, Session, SessionRequest, VideoPipeline
from model_core.presets import millrace_64
from model_core.types import FrameChunk, Numerics, SessionContext
from service.sessions.pacing import MediaTimeline, Pacer
from tests.fakes import FakeEncoder, ManualClock

CONFIG = millrace_64()
PER_CHUNK, CHUNK_S, STEPS = CONFIG.frames_per_chunk, CONFIG.chunk_seconds, CONFIG.num_steps
LEAD_S = 1.0
COSTS = StepCosts((1, 2, 4, 8), (0.02, 0.024, 0.034, 0.06))  # eight sessions fill it to three quarters
OPEN_S = 0.04
MAX_LEAD_CHUNKS = 2
BYSTANDERS = 4
SECONDS = 20
EVERY_S = 0.04


@dataclass(eq=False)
class Row:
    """One leg on the device."""

    context: SessionContext
    slot: int
    opened_at: float
    chunk: int
    step: int = 0
    waiting: int = 0
    last_turn: int = -1
    done: asyncio.Queue[int] = field(default_factory=asyncio.Queue)

    def view(self) -> RowView:
        assert self.context.due_s is not None
        due = self.opened_at + self.context.due_s + (self.chunk - self.context.next_chunk) * CHUNK_S
        return RowView(self.slot, due, STEPS - self.step, self.waiting, self.last_turn)


class Device:
    """A `Decoder` that costs nothing on top of a denoiser that is as the real one: legs are opened at once, then rows share forwards.

    It counts the forwards' rows and the legs of each session.
    """

    def __init__(self, clock: ManualClock) -> None:
        self.steps: Counter[str] = Counter()
        self.legs: Counter[str] = Counter()
        self._clock = clock
        self._rows: dict[int, Row] = {}
        self._entering: list[Row] = []
        self._wake = asyncio.Event()
        self._slots = self._turns = 0

    async def stream(self, context: SessionContext) -> AsyncGenerator[FrameChunk, None]:
        self._slots += 1
        row = Row(context, self._slots, self._clock.now(), context.next_chunk)
        self._entering.append(row)
        self._wake.set()
        try:
            while True:
                chunk = await row.done.get()
                row.waiting -= 1
                self._wake.set()
                latents = np.zeros(CONFIG.latent_shape(chunk), np.float32)
                yield FrameChunk(
                    index=chunk, first_frame=chunk * PER_CHUNK, num_frames=PER_CHUNK, height=1, width=1, codec=context.codec,
                    data=(b"",) * PER_CHUNK, latents=latents, timings=(), numerics=Numerics("", ""),
                )  # fmt: skip
        finally:
            self._rows.pop(row.slot, None)
            if row in self._entering:
                self._entering.remove(row)

    async def run(self) -> None:
        while True:
            while self._entering:
                row = self._entering.pop(0)
                self.legs[row.context.session_id] += 1
                self._rows[row.slot] = row
                await self._clock.sleep(OPEN_S)
            views = [row.view() for row in self._rows.values()]
            slots = schedule(views, COSTS, MAX_LEAD_CHUNKS, 0.5, self._clock.now())
            if not slots:
                self._wake.clear()
                await self._wake.wait()
                continue
            rows = [self._rows[slot] for slot in slots]
            await self._clock.sleep(COSTS.of(len(rows)))
            for row in rows:
                self._forwarded(row)

    def _forwarded(self, row: Row) -> None:
        self._turns += 1
        self.steps[row.context.session_id] += 1
        row.last_turn, row.step = self._turns, row.step + 1
        if row.step == STEPS:
            row.done.put_nowait(row.chunk)
            row.waiting, row.chunk, row.step = row.waiting + 1, row.chunk + 1, 0


@dataclass
class Viewer:
    """Watches a session, and paces it as a front door does."""

    session: Session
    pacer: Pacer
    late: list[float] = field(default_factory=list)
    next_frame: int = 0
    acks: int = 0
    replaced_at: int = 0
    seen_at: list[float] = field(default_factory=list)

    async def watch(self, clock: ManualClock) -> None:
        async with aclosing(self.session.events(self.pacer)) as events:
            async for event in events:
                match event:
                    case FrameChunk():
                        self.late.append(self.pacer.sent(event.first_frame))
                        self.next_frame = event.first_frame + event.num_frames
                        self.seen_at.append(clock.now())
                    case PromptApplied():
                        self.pacer.asked(event.first_frame)
                        self.acks, self.replaced_at = self.acks + 1, event.first_frame
                    case Paused():
                        self.pacer.pause()
                    case Resumed():
                        self.pacer.resume(event.next_frame)


async def flood(viewer: Viewer, how: str, clock: ManualClock) -> None:
    number = 0
    while True:
        await clock.sleep(EVERY_S)
        number += 1
        match how:
            case "from the first frame":
                await viewer.session.set_prompt(f"prompt {number}", number, 0)
            case "from the next on the screen":
                due = viewer.pacer.due_s(viewer.next_frame) or 0.0
                await viewer.session.set_prompt(f"prompt {number}", number, max(0, viewer.next_frame - int(due * CONFIG.fps)))
            case "prompt":
                await viewer.session.set_prompt(f"prompt {number}", number)
            case "resume":
                viewer.session.resume()
            case "pause":
                viewer.session.pause()
                viewer.session.resume()


async def played(how: str) -> tuple[Device, list[Viewer]]:
    """The last viewer floods, if told how."""
    clock = ManualClock()
    device = Device(clock)
    pipeline = VideoPipeline(CONFIG, FakeEncoder(), device, keep_chunks=40)
    viewers: list[Viewer] = []
    for number in range(BYSTANDERS + 1):
        session = await pipeline.open(SessionRequest(f"viewer {number}", "a red circle", number, STEPS, None))
        viewers.append(Viewer(session, Pacer(MediaTimeline(CONFIG.fps, LEAD_S), clock, CHUNK_S)))
    tasks = [asyncio.create_task(device.run()), *(asyncio.create_task(viewer.watch(clock)) for viewer in viewers)]
    await clock.advance(1.0)
    if how:
        tasks.append(asyncio.create_task(flood(viewers[-1], how, clock)))
    await clock.advance(SECONDS - 1.0)
    for task in tasks:
        assert not task.done()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    return device, viewers


@pytest.mark.parametrize("how", ["", "from the first frame", "from the next on the screen", "prompt", "resume", "pause"])
async def test_one_who_steers_without_rest_takes_no_more_than_it_was_admitted_for_and_half(how: str) -> None:
    device, viewers = await played(how)

    granted = STEPS * (SECONDS + LEAD_S) / CHUNK_S
    at_once = STEPS * (2 * 2 + MAX_LEAD_CHUNKS)  # two allowances, and what the device makes before it is asked for
    assert device.steps["viewer 4"] <= (1 + 2 / 4) * granted + at_once
    assert device.legs["viewer 4"] <= 1 + 3 + SECONDS / CHUNK_S / 4
    for bystander in viewers[:-1]:
        assert max(bystander.late) == 0
        assert device.steps[bystander.session.request.session_id] >= STEPS * SECONDS / CHUNK_S
    flooder = viewers[-1]
    if how != "pause":  # everything else leaves the frames coming, the old ones if need be
        assert max(after - before for before, after in itertools.pairwise(flooder.seen_at)) < 2 * CHUNK_S
    if "prompt" in how or "from" in how:
        assert flooder.acks > 0.9 * SECONDS / EVERY_S - 2 / EVERY_S


async def test_one_who_steers_now_and_then_waits_for_nothing() -> None:
    clock = ManualClock()
    device = Device(clock)
    session = await VideoPipeline(CONFIG, FakeEncoder(), device, keep_chunks=40).open(SessionRequest("one", "a red circle", 1, STEPS, None))
    viewer = Viewer(session, Pacer(MediaTimeline(CONFIG.fps, LEAD_S), clock, CHUNK_S))
    tasks = [asyncio.create_task(device.run()), asyncio.create_task(viewer.watch(clock))]
    for number in range(6):
        await clock.advance(4.0)
        sent = viewer.next_frame
        await session.set_prompt(f"prompt {number}", number, sent - 16)
        await clock.advance(0.3)  # opening, and four steps
        assert viewer.acks == number + 1
        assert viewer.replaced_at == sent - 16
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert max(viewer.late) == 0
