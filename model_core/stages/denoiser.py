"""The denoise stage in this process: owns the engine and the one thread that steps it.

The thread sleeps while no session is ready. Sessions beyond the slots wait their turn in arrival order. If a step raises, every waiter
fails with `EngineDead`, and so does every later call and the health check: a replica in this state is replaced, not repaired. So it is
with a chunk that is not finite, once; the session that it belongs to is then known, and cannot take the next replica with it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from model_core.config import EngineConfig, ModelConfig
from model_core.engine.engine import Engine, ForwardProfile
from model_core.engine.session import EngineSession, check, given_chunks
from model_core.errors import ChunkNotFinite, EngineDead, SessionBroken
from model_core.events import Observer
from model_core.families.interface import Sampler
from model_core.types import LatentChunk, SessionContext


@dataclass(frozen=True, slots=True)
class DenoiserStatistics:
    """What this replica holds and has done.

    Attributes:
        sessions, waiting, free_slots: now.
        undelivered: finished chunks whose reader has not taken them, now.
        steps, rows, chunks: forwards, rows in them, chunks finished, since the start.
        busy_s: seconds the device was busy, since the start.
        expected_s: what that would have been by `profile`.
        profile: measured before the first session.
    """

    sessions: int
    waiting: int
    free_slots: int
    undelivered: int
    steps: int
    rows: int
    chunks: int
    busy_s: float
    expected_s: float
    profile: ForwardProfile


class _NotFinite(FloatingPointError):
    def __init__(self, session: EngineSession, chunk: int) -> None:
        self.session = session
        self.chunk = chunk
        super().__init__(f"chunk {chunk} of session {session.context.session_id} is not finite")


class _Leg:
    """One `stream` call, between its event loop and the engine's thread. `inbox` is bounded by the engine's lead."""

    def __init__(self, context: SessionContext, since: float) -> None:
        self.context = context
        self.since = since
        self.session: EngineSession | None = None
        self._loop = asyncio.get_running_loop()
        self.inbox: asyncio.Queue[LatentChunk | EngineDead | SessionBroken | None] = asyncio.Queue()

    def deliver(self, item: LatentChunk | EngineDead | SessionBroken | None) -> None:
        """From any thread; a reader whose loop is closed has gone, and cannot be told."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.inbox.put_nowait, item)


class LocalDenoiser:
    """A `Denoiser`. `stream` may be called from any event loop."""

    def __init__(self, sampler: Sampler, config: ModelConfig, engine: EngineConfig, clock: Callable[[], float] = time.perf_counter) -> None:
        """Warm every graph in every bucket, then start the thread; blocks until it is ready."""
        self._engine = Engine(sampler, config, engine, clock)
        self._sampler = sampler
        self._engine.warm_up()
        self._clock = clock
        self._wake = threading.Condition()
        self._commands: deque[Callable[[], None]] = deque()
        self._waiting: deque[_Leg] = deque()
        self._legs: dict[EngineSession, _Leg] = {}
        self._stopping = False
        self._end: BaseException | str | None = None
        self._thread = threading.Thread(target=self._run, name="denoiser", daemon=True)
        self._thread.start()

    async def stream(self, context: SessionContext) -> AsyncGenerator[LatentChunk, None]:
        """See `Denoiser.stream`.

        Raises:
            InvalidRequest: the context does not fit the model.
            EngineDead: the engine has crashed, or the stage is closed; ChunkNotFinite if it was this session's chunk.
            SessionBroken: its suspect chunk is not finite here either.
        """
        self.check_health()
        config = self._engine.config
        check(config, self._sampler, context)
        for chunk, after in given_chunks(context, config):
            yield chunk
            context = after
        if context.next_chunk == context.end_chunk(config.grid):
            return
        leg = _Leg(context, self._clock())
        self._command(lambda: self._enter(leg))
        try:
            while (item := await leg.inbox.get()) is not None:
                if isinstance(item, EngineDead | SessionBroken):
                    raise item
                self._command(lambda: self._taken(leg))
                yield item
        finally:
            self._command(lambda: self._close(leg))

    def observe(self, observer: Observer) -> None:
        """See `ReportsForwards.observe`."""
        self._engine.observer = observer

    def statistics(self) -> DenoiserStatistics:
        """Counts; exact between steps."""
        e = self._engine.statistics()
        undelivered = sum(session.waiting_chunks for session in list(self._legs))
        return DenoiserStatistics(
            e.sessions, len(self._waiting), e.free_slots, undelivered, e.steps, e.rows, e.chunks, e.busy_s, e.expected_s, e.profile
        )

    def check_health(self) -> None:
        """Raise what killed the engine, if it is dead.

        Raises:
            EngineDead: with the cause.
        """
        if self._end is not None:
            raise self._dead()

    async def aclose(self) -> None:
        """Stop the thread after its current step; open streams fail with `EngineDead`. Safe to call twice."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)

    # -- engine thread --------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        reason: BaseException | str = "the denoise stage is closed"
        try:
            while True:
                with self._wake:
                    if self._stopping:
                        return
                    while self._commands:
                        self._commands.popleft()()
                self._admit()
                if not self._engine.step(self._emit):
                    with self._wake:
                        self._wake.wait_for(lambda: self._commands or self._stopping)
        except BaseException as error:  # noqa: BLE001  whatever ends this thread must reach the waiters
            reason = error
        finally:
            self._die(reason)

    def _admit(self) -> None:
        while self._waiting and self._engine.free_slots:
            leg = self._waiting[0]  # it stays there until its session is open, so that `_die` finds it if that fails
            leg.session = self._engine.open(leg.context, leg.since)
            self._legs[leg.session] = self._waiting.popleft()
            if leg.session.finished:
                leg.deliver(None)

    def _emit(self, session: EngineSession, chunk: LatentChunk) -> None:
        leg = self._legs[session]
        if not np.isfinite(chunk.latents).all():
            bad = _NotFinite(session, chunk.index)
            if session.context.suspect_chunk != chunk.index:
                raise bad
            leg.deliver(SessionBroken(f"{bad}, on more than one replica"))
            return
        leg.deliver(chunk)
        if session.end_chunk == chunk.index + 1:
            leg.deliver(None)

    def _enter(self, leg: _Leg) -> None:
        if self._end is None:
            self._waiting.append(leg)
        else:
            leg.deliver(self._dead())

    def _taken(self, leg: _Leg) -> None:
        if leg.session in self._legs and leg.session is not None:
            self._engine.taken(leg.session)

    def _close(self, leg: _Leg) -> None:
        if leg.session is None:
            if leg in self._waiting:
                self._waiting.remove(leg)
        elif self._legs.pop(leg.session, None) is not None:
            self._engine.close(leg.session)

    def _die(self, reason: BaseException | str) -> None:
        with self._wake:
            self._end = reason
            while self._commands:
                self._commands.popleft()()
            for leg in [*self._waiting, *self._legs.values()]:
                leg.deliver(self._dead(leg.session))
            self._waiting.clear()

    def _dead(self, session: EngineSession | None = None) -> EngineDead:
        """Why the thread has ended; a new exception for each who asks, because one that is raised again and again collects tracebacks."""
        if not isinstance(self._end, BaseException):
            return EngineDead(self._end)
        told = f"the denoise engine crashed: {type(self._end).__name__.lstrip('_')}: {self._end}"
        end = self._end
        dead = ChunkNotFinite(told, end.chunk) if isinstance(end, _NotFinite) and end.session is session else EngineDead(told)
        dead.__cause__ = self._end
        return dead

    def _command(self, command: Callable[[], None]) -> None:
        """Hand `command` to the engine's thread, to run before its next step; after its death, run it here, so that nothing stays open."""
        with self._wake:
            if self._end is None:
                self._commands.append(command)
                self._wake.notify()
            else:
                command()
