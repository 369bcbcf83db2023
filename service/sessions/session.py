"""One session at the front door, from its slot to its `Ended`: pacing, usage, records, and whoever steers, drains or fails it.

One task, the caller's, pulls the session's events and sends each one before it pulls the next. So one chunk at most lies between the
pipeline and the wire's flow control.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from model_core.errors import StageUnavailable
from model_core.media import fmp4_init_segment
from model_core.reconcile import Reconciled
from model_core.session import MadeAgain, Session, SessionEvent, StepsApplied
from model_core.tasks import cancel_and_wait, run_in_thread
from model_core.types import Codec, FrameChunk, StageTiming
from observability.session_meter import SessionMeter
from service.admission.desk import AdmissionTicket
from service.clock import Clock
from service.events import (
    Ended,
    EndReason,
    Frames,
    Paused,
    PromptApplied,
    PromptRefused,
    QualityChanged,
    QualityReason,
    QueuePosition,
    Resumed,
    Send,
    SourceDropped,
    Started,
    Usage,
)  # fmt: skip
from service.ledger.account import SessionAccount
from service.orders import Mode, Order
from service.records.keeper import SessionKeeper
from service.sessions.outbox import Outbox
from service.sessions.pacing import ACTED, SPARED, MediaTimeline, Pacer
from service.sessions.sourcing import SourceTerms, Sourcing
from service.sessions.steering import Steering

_TICK_S = 1.0

DRAINING = "the server is shutting down; another one will answer"


@dataclass(frozen=True, slots=True)
class Opening:
    """When the call arrived, and what it took to embed the prompt and decode the upload."""

    arrived: float
    encoding: StageTiming


class ServedSession:
    """One viewer's session with its place at admission. The task that serves it owns it; any task of the same loop may end it.

    Attributes:
        account: counts what is billed; None where nobody is.

    Args:
        order: what to make.
        session: opened for it.
        ticket: its place in line or its slot.
        meter: counts what the viewer sees.
        opening: what happened before.
        keeper: writes the session down while it runs.
        tenant: which may go on with it elsewhere.
        clock: time for pacing and measurements.
        sources: how what comes of a source is taken.
        watch_token: what others need to watch it; empty where nobody may.
    """

    def __init__(
        self,
        order: Order,
        session: Session,
        ticket: AdmissionTicket,
        meter: SessionMeter,
        opening: Opening,
        keeper: SessionKeeper,
        tenant: str,
        clock: Clock,
        sources: SourceTerms,
        watch_token: str = "",
    ) -> None:
        self.order = order
        self.session = session
        self.ticket = ticket
        self.meter = meter
        self.reason = EndReason.COMPLETED
        self.account: SessionAccount | None = None
        self._opening = opening
        self._keeper = keeper
        self._tenant = tenant
        self._clock = clock
        self._watch_token = watch_token
        self._draining = False
        self._stop_asked = False
        self._failure: Exception | None = None
        config = order.config
        self._pacer = Pacer(MediaTimeline(config.fps, order.max_lead_s), clock, config.chunk_seconds, ACTED if config.keys else SPARED)
        self.sourcing = None if session.source is None else Sourcing(session.source, order, sources, self._pacer, clock)
        self._usage = Usage.of(config, session.next_frame if order.goes_on or order.resume is None else 0)
        self._sent_before_s = self._usage.video_s
        self._playing = asyncio.Event()
        self._playing.set()
        self._admitted_at = opening.arrived
        self._before_chunks: tuple[StageTiming, ...] = (opening.encoding,)  # of what was done between admission and the first chunk
        self._first_sent = False
        self._switched_at: float | None = None
        self._steps = order.request.num_steps  # as the caller knows it

    @property
    def sent_s(self) -> float:
        """Seconds of video sent on this connection, without those that were superseded."""
        return max(0.0, self._usage.video_s - self._sent_before_s)

    @property
    def text_s(self) -> float:
        """Device time of the prompts that it began with, and of its upload."""
        return self._opening.encoding.device_s

    # --- How others end it.

    def end(self, reason: EndReason) -> None:
        """End in order before the next chunk, whether it waits or runs. The first reason counts."""
        if self.reason is EndReason.COMPLETED:
            self.reason = reason
        self.ticket.withdraw()
        self.session.stop()

    def stop(self) -> None:
        """End because the caller said so. Nobody will resume the session."""
        self._stop_asked = True
        self.end(EndReason.STOPPED)

    def fail(self, error: Exception) -> None:
        """End with `error`. The first error counts."""
        self._failure = self._failure or error
        self.end(EndReason.STOPPED)

    def drain(self) -> None:
        """The server is shutting down. A session that plays may play on for a while; one that waits or is paused ends, to go elsewhere."""
        self._draining = True
        if self.session.paused or not self.ticket.admitted:
            self.end(EndReason.DRAINING)

    def hand_over(self) -> None:
        """The time to play on is over. A part of a file is of no use, so a file fails."""
        if self.order.doorway.mode.whole:
            self.fail(StageUnavailable(DRAINING))
        else:
            self.end(EndReason.DRAINING)

    def check(self) -> None:
        """Raise the error that `fail` received."""
        if self._failure is not None:
            raise self._failure

    # --- How it is served.

    async def serve(self, send: Send, steering: Steering | None = None) -> None:
        """Send all events up to `Ended`, while `steering` applies the caller's controls.

        Raises:
            StageUnavailable: a stage stayed away, or the server drains while the session waits.
            SessionMoved: another connection resumed the session.
            ReaderStalled: from `send`, or a source stays away.
            InvalidRequest: from `steering`.
        """
        outbox = Outbox(send, self._pacer, self._clock)
        helpers: list[asyncio.Task[None]] = []
        try:
            if steering is not None:
                helpers.append(asyncio.create_task(self._guarded(partial(steering.steer, self, partial(_refuse, outbox)))))
            if await self._wait_for_slot(outbox):
                async with self._keeper.keeping(self.order.token, self.order.holder, self._tenant, self.session) as kept:
                    await self._start(outbox)
                    if steering is not None:
                        helpers.append(asyncio.create_task(self._guarded(partial(self._tick, outbox))))
                    if self.order.resume is not None:
                        await self._send_again(self.order.resume.story, outbox)
                    async with aclosing(self.session.events(self._pacer)) as events:
                        async for event in events:
                            await self._deliver(event, outbox, steering)
                            kept.changed(at_once=not isinstance(event, FrameChunk | MadeAgain))
                    kept.end(stopped=self._stop_asked, completed=self.reason is EndReason.COMPLETED)
            self.check()
            # Not while the ticker writes: a write that is cancelled half way would leave the call unable to take another.
            async with outbox.lock:
                await cancel_and_wait(*helpers)
            await outbox.send(Ended(self.reason, self._usage))
        finally:
            await cancel_and_wait(*helpers)

    async def wait_until_admitted(self) -> None:
        """Wait for a slot without reporting places in line. Raises StageUnavailable: the server drains."""
        if not await self.ticket.decided():
            raise StageUnavailable(DRAINING)

    async def _wait_for_slot(self, outbox: Outbox) -> bool:
        """True with a slot, False if the caller gave up in line."""
        waited = False
        async with aclosing(self.ticket.positions()) as positions:
            async for position in positions:
                waited = True
                await outbox.send(QueuePosition(position))
        if not self.ticket.admitted:
            self.check()
            if self.reason is EndReason.DRAINING:
                raise StageUnavailable(DRAINING)
            return False
        now = self._clock.now()
        self.meter.waited(self._opening.arrived if waited else now, now)
        if waited:
            self._admitted_at = now
            self._before_chunks = ()
        return True

    async def _start(self, outbox: Outbox) -> None:
        order, config = self.order, self.order.config
        header = b""
        if order.request.codec is Codec.FMP4_H264:
            header = await run_in_thread(fmp4_init_segment, config.width, config.height, config.fps)
        self._steps = self.session.steps if order.resume is None else order.resume.known_steps
        started = Started.of(order.request, config, self._steps, header, order.token, self._watch_token, self.session.next_frame)
        await outbox.send(started if self.sourcing is None else replace(started, source=self.sourcing.opening()))
        self.meter.started()

    async def _deliver(self, event: SessionEvent, outbox: Outbox, steering: Steering | None) -> None:
        match event:
            case FrameChunk():
                await self._deliver_frames(event, outbox)
            case MadeAgain(chunk=index) if self.sourcing is not None:
                await outbox.send(self.sourcing.made(index))
            case PromptApplied(first_frame=first_frame):
                self._switched_at = None if steering is None else steering.in_force()
                self._usage = self._usage.less(event.superseded)
                if self.account is not None and event.superseded:
                    self.account.superseded(first_frame)
                self._pacer.asked(first_frame)
                await outbox.send(event)
                _answered(steering)
            case StepsApplied(steps=steps, first_frame=first_frame):
                await self._report_quality(steps, first_frame, outbox)
            case Paused():
                self._pacer.pause()
                self._playing.clear()
                self.meter.paused()
                self.ticket.pause()
                if self._draining:
                    self.end(EndReason.DRAINING)
                await outbox.send(event)
                _answered(steering)
            case Resumed(next_frame=next_frame):
                if not await self._slot_again(outbox):
                    return
                self._pacer.resume(next_frame)
                self._playing.set()
                await outbox.send(event)
                _answered(steering)

    async def _slot_again(self, outbox: Outbox) -> bool:
        """After a pause, during which others may have taken the slot. False if the session ended while it waited for another one."""
        since = self._clock.now()
        self.ticket.resume()
        async with aclosing(self.ticket.positions()) as positions:
            async for position in positions:
                await outbox.send(QueuePosition(position))
        if self.ticket.admitted and (now := self._clock.now()) > since:
            self.meter.waited(since, now)
        return self.ticket.admitted

    async def _deliver_frames(self, chunk: FrameChunk, outbox: Outbox) -> None:
        arrived = self._clock.now()
        self._usage = self._usage.plus(chunk)
        await outbox.send(Frames(chunk, () if self._first_sent else (self._opening.encoding,)))
        if self.account is not None:
            self.account.sent(chunk)
        now = self._clock.now()
        if not self._first_sent:
            self._first_sent = True
            ready_s = now - self._pacer.blocked_s - self._admitted_at
            if not self.order.goes_on:
                self.meter.first(ready_s, (*self._before_chunks, *chunk.timings))
            else:
                self.meter.resumed(ready_s)
        if self._switched_at is not None:
            self.meter.switched(now - self._switched_at)
            self._switched_at = None
        if self.sourcing is not None:
            taken = self.sourcing.made(chunk.index)
            self._usage = self.sourcing.counted(self._usage)
            await outbox.send(taken)
        late_s = self._pacer.sent(chunk.first_frame)
        self.meter.sent(chunk, arrived, now, late_s, self._pacer.stalled_s)
        if self._steps < self.order.request.num_steps:
            config = self.order.config
            self.meter.degraded(self.ticket.level(config.work(self._steps, self.order.request.scale(config))))

    async def _send_again(self, story: Reconciled, outbox: Outbox) -> None:
        """Send again what got lost on its way when the caller's last connection broke."""
        grid = self.order.config.grid
        if self.order.doorway.mode is Mode.LIVE:
            for entry in story.prompts:
                await outbox.send(
                    PromptApplied(entry.prompt, grid.first_frame(entry.chunk), entry.request_id, entry.change, keys=entry.keys)
                )
        for chunk, steps in story.steps:
            await self._report_quality(steps, grid.first_frame(chunk), outbox)

    async def _report_quality(self, steps: int, first_frame: int, outbox: Outbox) -> None:
        if steps != self._steps:
            reason = QualityReason.LOAD if steps < self._steps else QualityReason.RECOVERED
            self._steps = steps
            await outbox.send(QualityChanged(steps, first_frame, reason))

    async def _tick(self, outbox: Outbox) -> None:
        """Report the usage now and then. Nothing wakes it while the viewer pauses: there may be thousands of those.

        Raises:
            ReaderStalled: the session waits for its source for too long.
        """
        while True:
            await self._playing.wait()
            since = self._clock.now()
            await self._clock.sleep(_TICK_S)
            if not self.session.paused:
                if self.sourcing is not None:
                    self.sourcing.played(self._clock.now() - since)
                await outbox.post(self._usage)

    async def _guarded(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a helper. Its error ends the session, and `serve` raises it."""
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - `serve` raises it
            self.fail(error)


async def _refuse(outbox: Outbox, refused: PromptRefused | SourceDropped) -> None:
    await outbox.post(refused)


def _answered(steering: Steering | None) -> None:
    if steering is not None:
        steering.answered()
