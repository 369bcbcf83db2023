"""The denoise stage in this process: owns the engine and the one thread that steps it.

The thread sleeps while no session is ready. Sessions beyond the slots wait their turn in arrival order.

A session whose chunk cannot be made, or is not finite, ends alone: with `ChunkFailed` the first time, so that it is tried once more, here
or elsewhere, and with `SessionBroken` the second time. Only if the device itself is broken, or is stuck in a forward, every waiter fails
with `EngineDead`, and so do every later call and the health check: a replica in this state is replaced, not repaired.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from functools import partial
from itertools import count

import numpy as np

from model_core.config import EngineConfig, ModelConfig
from model_core.engine.engine import Engine
from model_core.engine.session import EngineSession, SourceQueue, check, given_chunks
from model_core.errors import DeviceBroken, EngineDead, FieldViolation, HeadraceError, InvalidRequest, StageUnavailable
from model_core.events import Observer
from model_core.families.interface import Sampler
from model_core.stages.failures import failed
from model_core.stages.sources import Dial, no_sources
from model_core.stages.watchdog import Watchdog
from model_core.statistics import DenoiserStatistics
from model_core.tasks import cancel_and_wait
from model_core.types import LatentChunk, Latents, Restyle, SessionContext


class _Leg:
    """One `stream` call, between its event loop and the engine's thread. `inbox` is bounded by the engine's lead.

    Attributes:
        source: what has come of the session's source, for the engine's thread.
        room: chunks of the source that may still be asked for, for the event loop.
    """

    def __init__(self, context: SessionContext, since: float, lead_chunks: int) -> None:
        self.context = context
        self.since = since
        self.session: EngineSession | None = None
        self.source = None if context.restyle is None else SourceQueue(context.restyle.strength)
        self.room = asyncio.Semaphore(lead_chunks + 1)
        self._loop = asyncio.get_running_loop()
        self.inbox: asyncio.Queue[LatentChunk | HeadraceError | None] = asyncio.Queue()

    def deliver(self, item: LatentChunk | HeadraceError | None) -> None:
        """From any thread; a reader whose loop is closed has gone, and cannot be told."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.inbox.put_nowait, item)


class LocalDenoiser:
    """A `Denoiser`. `stream` may be called from any event loop."""

    def __init__(
        self,
        sampler: Sampler,
        config: ModelConfig,
        engine: EngineConfig,
        clock: Callable[[], float] = time.perf_counter,
        watchdog: Watchdog | None = None,
    ) -> None:
        """Warm every graph in every bucket, then start the thread; blocks until it is ready."""
        self._engine = Engine(sampler, config, engine, clock)
        self._sampler = sampler
        self._engine.warm_up()
        self.numerics = self._engine.numerics
        profile = self._engine.statistics().profile
        self._watchdog = watchdog or Watchdog("denoise engine", config.execution.denoiser.stuck_seconds, clock)
        self._watchdog.took(max(map(sum, zip(profile.step_s, profile.commit_s, strict=True)), default=0.0))
        self._clock = clock
        self._wake = threading.Condition()
        self._commands: deque[Callable[[], None]] = deque()
        self._waiting: deque[_Leg] = deque()
        self._legs: dict[EngineSession, _Leg] = {}
        self._stopping = False
        self._dial: Dial = no_sources
        self._end: BaseException | str | None = None
        self._thread = threading.Thread(target=self._run, name="denoiser", daemon=True)
        self._thread.start()

    async def stream(self, context: SessionContext) -> AsyncGenerator[LatentChunk, None]:
        """See `Denoiser.stream`.

        Raises:
            InvalidRequest: the context does not fit the model.
            EngineDead: the device is broken or stuck, or the stage is closed.
            ChunkFailed: a chunk of this session, and of no other, cannot be made.
            SessionBroken: that chunk is its suspect one.
        """
        self.check_health()
        config = self._engine.config
        check(config, self._sampler, context)
        for chunk, after in given_chunks(context, config):
            yield chunk
            context = after
        if context.next_chunk == context.end_chunk(config.grid):
            return
        leg = _Leg(context, self._clock(), self._engine.engine.max_lead_chunks)
        self._command(lambda: self._enter(leg))
        feeding = None if context.restyle is None else asyncio.create_task(self._feed(leg, context.restyle))
        try:
            while (item := await self._next(leg)) is not None:
                if isinstance(item, HeadraceError):
                    raise item
                self._command(lambda: self._taken(leg))
                leg.room.release()
                yield item
        finally:
            self._command(lambda: self._close(leg))
            if feeding is not None:
                await cancel_and_wait(feeding)

    def dial_with(self, dial: Dial) -> None:
        """See `DialsSources.dial_with`."""
        self._dial = dial

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
        """Raise what killed the engine, if it is dead, or that it is stuck.

        Raises:
            EngineDead: with the cause.
        """
        if self._end is not None:
            raise self._dead()
        try:
            self._watchdog.check()
        except StageUnavailable as stuck:
            raise EngineDead(str(stuck)) from None

    async def aclose(self) -> None:
        """Stop the thread after its current step; open streams fail with `EngineDead`. Safe to call twice.

        A thread that is stuck is left behind.
        """
        with self._wake:
            self._stopping = True
            self._wake.notify()
        await self._watchdog.join(self._thread)

    async def _next(self, leg: _Leg) -> LatentChunk | HeadraceError | None:
        return await self._watchdog.until(asyncio.ensure_future(leg.inbox.get()), self.check_health)

    async def _feed(self, leg: _Leg, restyle: Restyle) -> None:
        """Bring the chunks of the leg's source to the engine, no further ahead than its reader may fall behind."""
        try:
            async with self._dial(restyle.source) as source:
                grid, first = self._engine.config.grid, leg.context.next_chunk
                ends = [end for end in (leg.context.end_chunk(grid), grid.chunks) if end is not None]
                for chunk in range(first, min(ends)) if ends else count(first):
                    await leg.room.acquire()
                    latents = await source.latents(chunk)
                    if latents is None:
                        self._command(partial(self._end_source, leg, chunk))
                        return
                    self._check_source(latents, chunk)
                    self._command(partial(self._put_source, leg, chunk, latents))
        except HeadraceError as error:
            leg.deliver(error)
        except Exception as error:  # noqa: BLE001 - whatever a source raises ends its leg
            leg.deliver(StageUnavailable(f"the session's source: {type(error).__name__}: {error}"))

    def _check_source(self, latents: Latents, chunk: int) -> None:
        """Raises InvalidRequest: the sampler has no use for them."""
        must = self._engine.config.latent_shape(chunk)
        if latents.shape != must or not np.isfinite(latents).all():
            told = f"must be finite latents of shape {must} for chunk {chunk}; got {latents.shape}"
            raise InvalidRequest((FieldViolation("source", told),))

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
                with self._watchdog.working():
                    stepped = self._engine.step(self._emit, self._fail)
                if not stepped:
                    with self._wake:
                        self._wake.wait_for(lambda: self._commands or self._stopping)
        except BaseException as error:  # noqa: BLE001  whatever ends this thread must reach the waiters
            reason = error
        finally:
            self._die(reason)

    def _admit(self) -> None:
        while self._waiting and self._engine.free_slots:
            leg = self._waiting[0]  # it stays there until its session is open, so that `_die` finds it if the device is broken
            try:
                with self._watchdog.working(1 + len(leg.context.suffix)):
                    leg.session = self._engine.open(leg.context, leg.since, leg.source)
            except DeviceBroken:
                raise
            except Exception as error:  # noqa: BLE001 - whatever a family's code raises for one leg ends that leg
                self._waiting.popleft()
                leg.deliver(failed(leg.context, leg.context.next_chunk, error))
                continue
            self._legs[leg.session] = self._waiting.popleft()
            if leg.session.finished:
                leg.deliver(None)

    def _emit(self, session: EngineSession, chunk: LatentChunk) -> None:
        leg = self._legs[session]
        leg.deliver(chunk)
        if session.ends_after(chunk.index):
            leg.deliver(None)

    def _fail(self, session: EngineSession, error: Exception) -> None:
        self._legs.pop(session).deliver(failed(session.context, session.chunk_index, error))

    def _enter(self, leg: _Leg) -> None:
        if self._end is None:
            self._waiting.append(leg)
        else:
            leg.deliver(self._dead())

    def _put_source(self, leg: _Leg, chunk: int, latents: Latents) -> None:
        if leg.source is not None:
            leg.source.chunks[chunk] = latents

    def _end_source(self, leg: _Leg, chunk: int) -> None:
        """The source has ended before `chunk`. If the chunk before that is done, nobody else tells the reader."""
        if leg.source is not None:
            leg.source.end = chunk
            if leg.session is not None and leg.session in self._legs and leg.session.finished:
                leg.deliver(None)

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
                leg.deliver(self._dead())
            self._waiting.clear()

    def _dead(self) -> EngineDead:
        """Why the thread has ended; a new exception for each who asks, because one that is raised again and again collects tracebacks."""
        if not isinstance(self._end, BaseException):
            return EngineDead(self._end)
        dead = EngineDead(f"the denoise engine crashed: {type(self._end).__name__}: {self._end}")
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
