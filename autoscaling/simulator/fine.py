"""The fine data plane: a heap of single events around the real step scheduler. The oracle of `kernel`, some hundred times slower."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from autoscaling.simulator.arrays import Floats, Ints
from autoscaling.simulator.kernel import EPSILON_S, noise_factor
from autoscaling.simulator.plane import Played, StageTimes
from model_core.buckets import bucket_for
from model_core.engine.step_scheduler import RowView, StepCosts, schedule


@dataclass(slots=True, eq=False)
class _Session:
    index: int
    end: int
    asked: int
    steps: int = 0
    engine: int = -1
    slot: int = -1
    decoder: int = -1
    leg: int = 0
    base: int = 0
    taken: int = 0
    step: int = 0
    turn: int = -1
    due: float = 0.0
    ready_at: float = 0.0
    made_at: list[float] = field(default_factory=list)
    sent_at: list[float] = field(default_factory=list)
    reduced: list[bool] = field(default_factory=list)  # by chunk sent: with fewer steps than asked for
    origin: float = math.inf


@dataclass(slots=True, eq=False)
class _Engine:
    key: int
    free_at: float
    rows: list[_Session | None]
    turns: int = 0
    forwards: int = 0
    busy_s: float = 0.0
    expected_s: float = 0.0
    owed_s: float = 0.0  # commits of suffixes, before the next forward
    wake_at: float = -math.inf  # the last event that was planned for the end of its work


@dataclass(slots=True, eq=False)
class _Decoder:
    key: int
    free_at: float
    chunks: int = 0
    busy_s: float = 0.0


class FinePlane:
    """A `DataPlane`; arguments as of `FastPlane`."""

    def __init__(self, times: StageTimes, chunks: Ints, seed: int, bins: int, bin_s: float) -> None:
        self._times, self._seed, self._bins, self._bin_s = times, seed, bins, bin_s
        self._costs = StepCosts(times.profile.buckets, times.profile.step_s)
        self._sessions = [_Session(i, int(n), times.steps) for i, n in enumerate(chunks)]
        self._engines: dict[int, _Engine] = {}
        self._decoders: dict[int, _Decoder] = {}
        self._events: list[tuple[float, int, int, int]] = []  # time, what, of whom, leg
        self._ended: list[tuple[float, int]] = []
        self._closed: list[_Session] = []
        self._count = 0

    def add_engine(self, key: int, now: float) -> int:
        engine = len(self._engines)
        self._engines[engine] = _Engine(key, now, [None] * self._times.slots)
        return engine

    def remove_engine(self, engine: int) -> None:
        pass

    def add_decoder(self, key: int, now: float) -> int:
        decoder = len(self._decoders)
        self._decoders[decoder] = _Decoder(key, now)
        return decoder

    def open(self, session: int, engine: int, decoder: int, steps: int, now: float, ready_at: float) -> None:
        s, e = self._sessions[session], self._engines[engine]
        if s.engine >= 0:
            self._leave(s, now)
        free = [slot for slot, row in enumerate(e.rows) if row is None]
        if not free:
            raise ValueError(f"engine {engine} has no free slot")
        s.engine, s.slot, s.decoder, s.steps, s.step, s.turn = engine, free[0], decoder, steps, 0, -1
        e.rows[free[0]] = s
        s.leg += 1
        s.base = s.taken = len(s.sent_at)
        s.made_at = [0.0] * s.base
        s.ready_at = ready_at
        s.due = s.origin + s.base * self._times.chunk_s if s.base else ready_at
        if s.base:
            e.owed_s += self._times.suffix_commit_s(s.base)
        self._push(ready_at, _ENGINE, engine)

    def close(self, session: int, now: float) -> None:
        s = self._sessions[session]
        if s.engine >= 0:
            self._leave(s, now)
            s.engine = -1
            s.leg += 1

    def advance(self, until: float) -> list[tuple[float, int]]:
        self._ended = []
        while self._events and self._events[0][0] <= until:
            now, what, who, leg = heapq.heappop(self._events)
            self._count += 1
            if what == _ENGINE:
                self._step(self._engines[who], who, now)
            elif what == _TAKE and self._sessions[who].leg == leg:
                self._take(self._sessions[who], now)
        return self._ended

    def finished(self, session: int, now: float) -> bool:
        s = self._sessions[session]
        return len(s.sent_at) >= s.end and s.sent_at[-1] <= now

    def first_frames(self) -> Floats:
        return np.array([s.origin for s in self._sessions])

    def sent(self, session: int) -> list[float]:
        """When each of its chunks was sent."""
        return list(self._sessions[session].sent_at)

    def work(self, engines: Sequence[int]) -> tuple[list[float], list[float]]:
        return [self._engines[e].busy_s for e in engines], [self._engines[e].expected_s for e in engines]

    def decoding(self, decoders: Sequence[int]) -> tuple[list[float], list[float]]:
        return [self._decoders[d].chunks for d in decoders], [self._decoders[d].busy_s for d in decoders]

    def played(self) -> Played:
        on_time, late, degraded = (np.zeros(self._bins, np.int64) for _ in range(3))
        for s in self._sessions:
            for chunk, (at, reduced) in enumerate(zip(s.sent_at, s.reduced, strict=True)):
                where = min(int(at / self._bin_s), self._bins - 1)
                degraded[where] += reduced
                (late if at > s.origin + chunk * self._times.chunk_s + EPSILON_S else on_time)[where] += 1
        return Played(on_time, late, degraded, self._count)

    def _push(self, at: float, what: int, who: int, leg: int = 0) -> None:
        heapq.heappush(self._events, (at, what, who, leg))

    def _leave(self, s: _Session, now: float) -> None:
        self._engines[s.engine].rows[s.slot] = None
        while len(s.sent_at) > s.base and s.sent_at[-1] > now:
            s.sent_at.pop()
            s.reduced.pop()
        if not s.sent_at:
            s.origin = math.inf

    def _step(self, e: _Engine, engine: int, now: float) -> None:
        """One forward, if the engine is free and somebody is ready."""
        if e.free_at > now:
            return self._wake(e, engine)
        times = self._times
        views = [self._view(s) for s in e.rows if s is not None and s.ready_at <= now]
        slots = schedule(views, self._costs, times.max_lead_chunks, times.comfort_s, now)
        if not slots:
            return None
        end, done = now + e.owed_s + self._account(e, self._costs.of(len(slots))), []
        e.owed_s = 0.0
        for slot in slots:
            s = e.rows[slot]
            assert s is not None  # noqa: S101 - the scheduler names rows that it was given
            e.turns += 1
            s.turn, s.step = e.turns, s.step + 1
            if s.step >= s.steps:
                s.made_at.append(end)
                s.step = 0
                done.append(s)
        if going_on := sum(len(s.made_at) < s.end for s in done):
            commit_s = times.profile.commit_s[times.profile.buckets.index(bucket_for(going_on, times.profile.buckets))]
            e.free_at = end + self._account(e, commit_s)
        else:
            e.free_at = end
        for s in done:
            self._plan_take(s)
        return self._wake(e, engine)

    def _wake(self, e: _Engine, engine: int) -> None:
        if e.wake_at != e.free_at:
            e.wake_at = e.free_at
            self._push(e.free_at, _ENGINE, engine)

    def _account(self, e: _Engine, expected_s: float) -> float:
        seconds = expected_s * float(noise_factor(self._seed, e.key, e.forwards, self._times.noise))
        e.forwards += 1
        e.busy_s += seconds
        e.expected_s += expected_s
        return seconds

    def _view(self, s: _Session) -> RowView:
        made = len(s.made_at)
        due = s.due + (made - s.base) * self._times.chunk_s
        return RowView(s.slot, due, s.steps - s.step, made - s.taken, s.turn, made >= s.end)

    def _asked_at(self, s: _Session, chunk: int) -> float:
        if chunk < s.base or (chunk == s.base and s.origin == math.inf):
            return -math.inf
        pace = s.origin + chunk * self._times.chunk_s - self._times.lead_s
        if chunk == s.base:
            return pace
        return math.inf if len(s.sent_at) < chunk else max(pace, s.sent_at[chunk - 1])

    def _plan_take(self, s: _Session) -> None:
        if s.taken < len(s.made_at):
            at = max(s.made_at[s.taken], self._asked_at(s, s.taken - self._times.ahead_chunks))
            if at < math.inf:
                self._push(at, _TAKE, s.index, s.leg)

    def _take(self, s: _Session, now: float) -> None:
        if s.taken >= len(s.made_at) or now < max(s.made_at[s.taken], self._asked_at(s, s.taken - self._times.ahead_chunks)):
            return
        chunk, s.taken = s.taken, s.taken + 1
        self._decode(self._decoders[s.decoder], s, chunk, now + self._times.hop_s)
        self._push(now, _ENGINE, s.engine)
        self._plan_take(s)

    def _decode(self, d: _Decoder, s: _Session, chunk: int, arrived: float) -> None:
        """What is taken will be decoded, in that order, so its end is known; a leg that closes before then takes the sending back."""
        seconds = self._times.decode_s * float(noise_factor(self._seed, d.key, d.chunks, self._times.noise))
        d.free_at = max(d.free_at, arrived) + seconds
        d.busy_s += seconds
        d.chunks += 1
        at = max(d.free_at + self._times.hop_s, self._asked_at(s, chunk))
        if s.origin == math.inf:
            s.origin = at - chunk * self._times.chunk_s
        s.sent_at.append(at)
        s.reduced.append(s.steps < s.asked)
        if chunk == s.end - 1:
            self._ended.append((at, s.index))


# Kinds of events, in the order in which those of one moment happen.
_TAKE, _ENGINE = range(2)
