"""Whose chunk is due first, where readers come late. The clock moves only by what forwards cost; latents are nothing."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from model_core.config import EngineConfig
from model_core.engine.engine import Engine
from model_core.engine.session import EngineSession
from model_core.errors import FieldViolation
from model_core.presets import millrace_64
from model_core.types import LatentChunk, Latents, SessionContext, TextEmbedding

CONFIG = millrace_64()
CHUNK_S = CONFIG.chunk_seconds
EMBEDDING = TextEmbedding("p", np.zeros((1, 1), np.float32), np.ones(1, np.bool_))
STEP_S = 0.03
# A forward takes as long for two as for one, and a chunk has four.
FOUR_FIT = EngineConfig(slots=8, batch_buckets=(1, 2), max_lead_chunks=2)


class Timed:
    """A `Sampler` that makes nothing; each forward moves the clock."""

    def __init__(self) -> None:
        self.now = 0.0

    def warm(self) -> None: ...

    def violations(self, context: SessionContext) -> tuple[FieldViolation, ...]:
        return ()

    def blank(self) -> TextEmbedding:
        return EMBEDDING

    def open(self, context: SessionContext) -> str:
        return context.session_id

    def start(self, leg: str, chunk: int) -> None: ...

    def group(self, leg: str) -> Hashable:
        return None

    def step(self, legs: Sequence[str]) -> None:
        self.now += STEP_S

    def latents(self, leg: str) -> Latents:
        return np.zeros((1, 1, 1, 1), np.float32)

    def commit(self, legs: Sequence[str]) -> None: ...


@dataclass
class Viewer:
    """Takes a chunk `lead_s` before it is due, by a timeline that begins with the first one; as fast as they come while `greedy`."""

    session: EngineSession
    lead_s: float = 0.5
    here: list[int] = field(default_factory=list)
    taken: int = 0
    origin: float | None = None
    away_until: float = 0.0
    greedy: bool = False
    late: list[float] = field(default_factory=list)

    def due(self, chunk: int) -> float:
        return -1.0 if self.origin is None else self.origin + chunk * CHUNK_S

    def wants(self, now: float) -> bool:
        return bool(self.here) and now >= self.away_until and (self.greedy or now >= self.due(self.taken) - self.lead_s)


class Hall:
    """An engine and its viewers."""

    def __init__(self, count: int) -> None:
        self.sampler = Timed()
        self.engine = Engine(self.sampler, CONFIG, FOUR_FIT, lambda: self.sampler.now)
        self.viewers = [self.enter(SessionContext(f"s{n}", 1, 4, EMBEDDING, due_s=0.0)) for n in range(count)]

    def enter(self, context: SessionContext) -> Viewer:
        return Viewer(self.engine.open(context))

    def play(self, seconds: float) -> None:
        until = self.sampler.now + seconds
        while self.sampler.now < until:
            if not self.engine.step(self._made):
                self.sampler.now += 0.01
            for viewer in self.viewers:
                while viewer.wants(self.sampler.now):
                    self._take(viewer)

    def _made(self, session: EngineSession, chunk: LatentChunk) -> None:
        next(viewer for viewer in self.viewers if viewer.session is session).here.append(chunk.index)

    def _take(self, viewer: Viewer) -> None:
        now, chunk = self.sampler.now, viewer.here.pop(0)
        if viewer.origin is None:
            viewer.origin = now - chunk * CHUNK_S
        viewer.late.append(max(0.0, now - viewer.due(chunk)))
        viewer.taken = chunk + 1
        self.engine.taken(viewer.session)


def test_a_reader_that_comes_back_after_a_long_stall_makes_nobody_late() -> None:
    """Four fill the engine; one takes nothing for 55 s, and then as fast as it can."""
    hall = Hall(4)
    hall.play(10)
    stalled, others = hall.viewers[0], hall.viewers[1:]
    for viewer in others:
        viewer.late.clear()
    stalled.away_until = hall.sampler.now + 55
    hall.play(56)
    assert stalled.away_until <= hall.sampler.now
    stalled.greedy = True
    hall.play(60)
    chunks = [late for viewer in others for late in viewer.late]
    assert sum(late > 0 for late in chunks) / len(chunks) < 0.01
    assert len(stalled.here) < FOUR_FIT.max_lead_chunks + 1
    assert stalled.taken > 60 / CHUNK_S  # it is served, too


def test_a_reader_that_is_always_too_slow_is_never_ahead_of_others() -> None:
    hall = Hall(4)
    hall.play(10)
    slow = hall.viewers[0]
    for _ in range(40):
        slow.away_until = hall.sampler.now + 1.0
        hall.play(1.0)
        assert slow.session.due - hall.sampler.now > 0
    assert all(late == 0 for viewer in hall.viewers[1:] for late in viewer.late[10:])


def test_a_session_that_a_stage_kept_waiting_is_helped() -> None:
    """Its leg opens anew on this replica, two seconds behind: it comes first until it has caught up."""
    hall = Hall(3)
    hall.play(10)
    late = Viewer(hall.engine.open(replace(SessionContext("late", 1, 4, EMBEDDING, due_s=-2.0), next_chunk=0)))
    late.origin = hall.sampler.now - 2.0
    hall.viewers.append(late)
    made = hall.engine.statistics().chunks
    hall.play(4 * STEP_S)
    assert late.here or late.taken
    assert hall.engine.statistics().chunks > made
    hall.play(20)
    assert late.late[0] > 1.5
    assert late.late[-1] == 0


def test_an_on_time_session_keeps_its_deadlines() -> None:
    hall = Hall(4)
    hall.play(30)
    assert [viewer.session.excused_s for viewer in hall.viewers] == [0.0] * 4


def test_a_leg_that_waited_for_a_slot_is_as_late_as_it_waited() -> None:
    sampler = Timed()
    engine = Engine(sampler, CONFIG, FOUR_FIT, lambda: sampler.now)
    sampler.now = 5.0
    session = engine.open(SessionContext("s", 1, 4, EMBEDDING, due_s=1.0), waiting_since=3.0)
    assert session.due == pytest.approx(4.0)
