"""One streaming call from its checked order to its Ended: slot, session, pacing, usage. Stream and Live both run here.

One task, the caller's, pulls the session's events and sends each before it pulls the next: what lies between the pipeline
and gRPC's flow control is one chunk. Leaving `run` in whatever way closes the session and frees the slot.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from google.protobuf.message import Message

from autoscaling.admission.decide import Ask
from doors.grpc import message_size, wire
from doors.grpc.edge import Call, ReaderStalled
from headrace.v1 import video_pb2 as pb
from model_core.errors import CapacityExceeded, StageUnavailable
from model_core.media import fmp4_init_segment
from model_core.pipeline import Paused, PromptApplied, Resumed, Session, SessionEvent, StepsApplied, VideoPipeline
from model_core.session_log import Reconciled
from model_core.tasks import cancel_and_wait, run_in_thread, unless
from model_core.types import Codec, FrameChunk, StageTiming
from model_core.uploads.decoders import UploadDecoders
from model_core.uploads.upload import Upload
from observability.context import SESSION_ID
from observability.metrics import Metrics
from observability.session_meter import SessionMeter
from service.admission.desk import AdmissionDesk, Ticket
from service.checks import Limits, Order
from service.records.keeper import Kept, SessionKeeper
from service.sessions.pacing import Clock, MediaTimeline, Pacer
from service.sessions.resumption import encoding_timing, open_session, trace_attributes
from service.sessions.running import DRAINING, RunningSession

_TICK_S = 1.0

Send = Callable[[Message], Awaitable[None]]
Refuse = Callable[[pb.PromptRefused], Awaitable[None]]
Steer = Callable[[RunningSession, Refuse], Coroutine[Any, Any, None]]
Reply = type[pb.StreamResponse | pb.LiveResponse]


class SessionRunner:
    """Runs sessions of all models that one desk admits."""

    def __init__(
        self,
        pipelines: Mapping[str, VideoPipeline],
        desk: AdmissionDesk,
        keeper: SessionKeeper,
        limits: Limits,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._pipelines = pipelines
        self._desk = desk
        self._keeper = keeper
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._running: set[RunningSession] = set()
        self._draining = asyncio.Event()
        self._handed_over = asyncio.Event()
        self._decoders = UploadDecoders()
        self._open = 0

    @property
    def open_sessions(self) -> int:
        """Sessions that wait or run."""
        return self._open

    def close(self) -> None:
        """Let go of what is held beyond calls."""
        self._decoders.close()

    def drain(self) -> None:
        """Take no more sessions. Those that run go on; those that wait or are paused end, since they lose nothing by going elsewhere."""
        self._draining.set()
        for running in self._running:
            running.drain()

    def hand_over(self) -> None:
        """End the sessions here before their next chunk, to go on elsewhere. A Generate fails, and so does a call that is not open yet."""
        self._handed_over.set()
        for running in self._running:
            running.hand_over()

    async def run(self, order: Order, reply: Reply, send: Send, call: Call, steer: Steer | None) -> None:
        """Serve `order`, sending `reply` messages; `steer` reads the caller's controls meanwhile.

        Raises:
            CapacityExceeded, StageUnavailable: also while it runs.
            SessionMoved: it was resumed on another connection.
            InvalidRequest: from `steer`.
            ReaderStalled: `send` was blocked for too long.
        """
        async with self.admitted(order, call) as place:
            serving = _Serving(reply, send, call, place, self._keeper, self._desk, self._limits, self._metrics, self._clock)
            await serving.serve(steer)

    @asynccontextmanager
    async def admitted(self, order: Order, call: Call, *, whole: bool = False) -> AsyncGenerator[Place, None]:
        """A place in line or a slot for the caller's tenant, with the session opened meanwhile. Its steps follow its ticket's.

        A session that goes on is taken from its holder only once it has a place here and can be opened.

        Raises:
            CapacityExceeded: there is no place.
            StageUnavailable: draining, or the text encoder stayed away.
        """
        if self._draining.is_set():
            raise StageUnavailable(DRAINING)
        arrived = self._clock.now()
        account = self._desk.tenant(call.tenant)
        config, steps, scale = order.config, order.request.num_steps, order.request.scale(order.config)
        ask = Ask(account, config.work(steps, scale), paced=order.max_lead_s > 0, resumed=order.resume is not None)
        SESSION_ID.set(order.request.session_id)
        if call.trace is not None:
            call.trace.about(order.request.session_id, trace_attributes(order, account))
        with self._counted(order.upload), self._entered(ask, order.token) as ticket:
            asked = self._clock.now()
            session = await self._opened(order, account)
            if order.claim is not None:
                order = await order.claim()
                session = await self._opened(order, account)
            encoded = self._clock.now()
            encoding = encoding_timing(session, encoded - asked)
            paced, numerics = order.max_lead_s > 0, session.context().numerics
            meter = SessionMeter(self._metrics, account, order.config.fps, paced=paced, trace=call.trace, numerics=numerics)
            meter.encoded(encoding, asked, encoded)
            running = RunningSession(session, ticket, self._limits.max_unanswered_controls, whole=whole)
            ticket.follow(
                lambda granted: session.set_steps(config.steps_within(granted, steps, scale)), lambda: running.end(pb.END_REASON_PAUSED)
            )
            if self._draining.is_set():
                running.drain()
            self._running.add(running)
            try:
                yield Place(order, running, ticket, arrived, encoding, meter)
            finally:
                meter.ended()
                self._running.discard(running)

    async def _opened(self, order: Order, account: str) -> Session:
        session = await unless(self._handed_over, open_session(self._pipelines[order.config.name], order, self._decoders, account))
        if session is None:
            raise StageUnavailable(DRAINING)
        return session

    @contextmanager
    def _entered(self, ask: Ask, token: str) -> Iterator[Ticket]:
        count = self._metrics.admissions_total
        try:
            with self._desk.enter(ask, token) as ticket:
                answer = "waiting" if not ticket.admitted else "degraded" if ticket.steps < ask.steps else "admitted"
                count.labels(ask.tenant, answer).inc()
                yield ticket
        except CapacityExceeded:
            count.labels(ask.tenant, "refused").inc()
            raise

    @contextmanager
    def _counted(self, upload: Upload | None) -> Iterator[None]:
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
            if upload is not None:  # refused before it was decoded, perhaps
                upload.forget()


@dataclass(frozen=True, slots=True)
class Place:
    """A session with its ticket and its meter. `arrived` is when the call came, `encoding` what its first prompt took."""

    order: Order
    running: RunningSession
    ticket: Ticket
    arrived: float
    encoding: StageTiming
    meter: SessionMeter


class _Serving:
    """The state of one `run`."""

    def __init__(
        self,
        reply: Reply,
        send: Send,
        call: Call,
        place: Place,
        keeper: SessionKeeper,
        desk: AdmissionDesk,
        limits: Limits,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._order = order = place.order
        self._reply: Any = reply
        self._write = send
        self._call = call
        self._place = place
        self._running = place.running
        self._keeper = keeper
        self._kept: Kept | None = None
        self._desk = desk
        self._limits = limits
        self._metrics = metrics
        self._meter = place.meter
        self._clock = clock
        self._pacer = Pacer(MediaTimeline(order.config.fps, order.max_lead_s), clock, order.config.chunk_seconds)
        self._usage = wire.Usage(frames=place.running.session.next_frame)
        self._write_lock = asyncio.Lock()
        self._playing = asyncio.Event()
        self._playing.set()
        self._admitted_at = place.arrived
        self._before_chunks: tuple[StageTiming, ...] = (place.encoding,)  # of what was done between admission and the first chunk
        self._first_sent = False
        self._switched_at: float | None = None
        self._steps = order.request.num_steps  # as the caller has been told

    async def serve(self, steer: Steer | None) -> None:
        helpers: list[asyncio.Task[None]] = []
        try:
            if steer is not None:
                helpers.append(asyncio.create_task(self._guarded(partial(steer, self._running, self._refuse))))
            if await self._wait_for_slot():
                async with self._keeper.keeping(self._order.token, self._order.holder, self._running.session) as self._kept:
                    header = await self._codec_header()
                    resume = self._order.resume
                    self._steps = self._running.session.steps if resume is None else resume.steps_told
                    await self._send(started=wire.started(self._order.request, self._order.config, self._steps, header, self._order.token))
                    self._meter.started()
                    if steer is not None:
                        helpers.append(asyncio.create_task(self._guarded(self._tick)))
                    if resume is not None:
                        await self._tell_again(resume.story)
                    async with aclosing(self._running.session.events(self._pacer)) as events:
                        async for event in events:
                            await self._deliver(event)
                            self._kept.changed(at_once=not isinstance(event, FrameChunk))
                    self._kept.end(stopped=self._running.stop_asked, completed=self._running.reason == pb.END_REASON_COMPLETED)
            self._running.check()
            # Not while the ticker writes: a write that is cancelled half way would leave the call unable to take another.
            async with self._write_lock:
                await cancel_and_wait(*helpers)
            self._call.outcome = self._running.outcome
            await self._send(ended=pb.Ended(reason=self._running.reason, usage=self._usage.tick(self._order.config.fps)))
        finally:
            await cancel_and_wait(*helpers)

    async def _wait_for_slot(self) -> bool:
        """True with a slot, False if the caller gave up in line."""
        ticket = self._place.ticket
        waited = False
        async with aclosing(ticket.positions()) as positions:
            async for position in positions:
                waited = True
                await self._send(queue_position=pb.QueuePosition(position=position))
        if not ticket.admitted:
            self._running.check()
            if self._running.reason == pb.END_REASON_SERVER_DRAINING:
                raise StageUnavailable(DRAINING)
            return False
        now = self._clock.now()
        self._meter.waited(self._place.arrived if waited else now, now)
        if waited:
            self._admitted_at = now
            self._before_chunks = ()
        return True

    async def _deliver(self, event: SessionEvent) -> None:
        match event:
            case FrameChunk():
                await self._deliver_frames(event)
            case PromptApplied(prompt=prompt, first_frame=first_frame, request_id=request_id, change=change):
                self._switched_at = self._running.prompts_at.popleft()
                self._usage.supersede(event.superseded)
                self._pacer.asked(first_frame)
                await self._send(prompt_ack=pb.PromptAck(prompt=prompt, first_frame=first_frame, request_id=request_id, change=change))
                self._running.unanswered.release()
            case StepsApplied(steps=steps, first_frame=first_frame):
                await self._tell_quality(steps, first_frame)
            case Paused(next_frame=next_frame):
                self._pacer.pause()
                self._playing.clear()
                self._meter.paused()
                self._desk.pause(self._place.ticket)
                if self._running.draining:
                    self._running.end(pb.END_REASON_SERVER_DRAINING)
                await self._send(paused=pb.Paused(next_frame=next_frame))
                self._running.unanswered.release()
            case Resumed(next_frame=next_frame):
                if not await self._slot_again():
                    return
                self._pacer.resume(next_frame)
                self._playing.set()
                await self._send(resumed=pb.Resumed(next_frame=next_frame))
                self._running.unanswered.release()

    async def _slot_again(self) -> bool:
        """After a pause, in which its slot may have gone to others. False if it ended while it waited for another one."""
        ticket, since = self._place.ticket, self._clock.now()
        self._desk.resume(ticket)
        async with aclosing(ticket.positions()) as positions:
            async for position in positions:
                await self._send(queue_position=pb.QueuePosition(position=position))
        if ticket.admitted and (now := self._clock.now()) > since:
            self._meter.waited(since, now)
        return ticket.admitted

    async def _deliver_frames(self, chunk: FrameChunk) -> None:
        arrived = self._clock.now()
        self._usage.add(chunk)
        whole = wire.frames(chunk, () if self._first_sent else (self._place.encoding,))
        for part in message_size.parts(whole, self._order.max_message_bytes, "start." if self._reply is pb.LiveResponse else ""):
            await self._send(frames=part)
        now = self._clock.now()
        if not self._first_sent:
            self._first_sent = True
            ready_s = now - self._pacer.blocked_s - self._admitted_at
            if self._order.resume is None:
                self._meter.first(ready_s, (*self._before_chunks, *chunk.timings))
            else:
                self._meter.resumed(ready_s)
        if self._switched_at is not None:
            self._meter.switched(now - self._switched_at)
            self._switched_at = None
        late_s = self._pacer.sent(chunk.first_frame)
        self._meter.sent(chunk, arrived, now, late_s, self._pacer.stalled_s)
        if self._steps < self._order.request.num_steps:
            config = self._order.config
            self._meter.degraded(self._desk.level(config.work(self._steps, self._order.request.scale(config))))

    async def _tell_again(self, story: Reconciled) -> None:
        """What got lost on its way to the caller when its last connection broke."""
        grid = self._order.config.grid
        if self._reply is pb.LiveResponse:
            for entry in story.prompts:
                ack = pb.PromptAck(prompt=entry.prompt, first_frame=grid.first_frame(entry.chunk), request_id=entry.request_id)
                ack.change = entry.change
                await self._send(prompt_ack=ack)
        for chunk, steps in story.steps:
            await self._tell_quality(steps, grid.first_frame(chunk))

    async def _tell_quality(self, steps: int, first_frame: int) -> None:
        if steps != self._steps:
            reason = pb.QUALITY_REASON_LOAD if steps < self._steps else pb.QUALITY_REASON_RECOVERED
            self._steps = steps
            await self._send(quality_change=pb.QualityChange(steps=steps, first_frame=first_frame, reason=reason))

    async def _refuse(self, refused: pb.PromptRefused) -> None:
        await self._post(prompt_refused=refused)

    async def _tick(self) -> None:
        """Nothing wakes it while the viewer pauses: there may be thousands of those."""
        while True:
            await self._playing.wait()
            await self._clock.sleep(_TICK_S)
            if not self._running.session.paused:
                await self._post(usage=self._usage.tick(self._order.config.fps))

    async def _guarded(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a helper; its error ends the session and is raised by `serve`."""
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - handed to `serve`, which raises it
            self._running.fail(error)

    async def _send(self, **event: Message) -> None:
        """From the task that pulls the session: the next frame waits for it, and so the viewer is waited for."""
        began = self._clock.now()
        await self._post(**event)
        self._pacer.blocked(self._clock.now() - began)

    async def _post(self, **event: Message) -> None:
        try:
            async with asyncio.timeout(self._limits.stall_timeout_seconds), self._write_lock:
                await self._write(self._reply(**event))
        except TimeoutError:
            raise ReaderStalled(f"nothing was read for {self._limits.stall_timeout_seconds:g} s") from None

    async def _codec_header(self) -> bytes:
        config = self._order.config
        if self._order.request.codec is not Codec.FMP4_H264:
            return b""
        return await run_in_thread(fmp4_init_segment, config.width, config.height, config.fps)
