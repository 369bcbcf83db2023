"""Runs the sessions of one front door, whatever door they came through: a place at admission, the session opened, then served.

To leave `run` or `make_file`, in whatever way, closes the session and frees its slot.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, contextmanager
from dataclasses import replace

from autoscaling.admission.decide import Ask
from model_core.errors import CapacityExceeded, StageUnavailable
from model_core.file_parts import Placement
from model_core.pipeline import VideoPipeline
from model_core.session import Session
from model_core.session_log import SessionRecord
from model_core.tasks import unless
from model_core.types import FrameChunk
from model_core.uploads.decoders import UploadDecoders
from model_core.uploads.upload import Upload
from observability.context import SESSION_ID
from observability.metrics import Metrics
from observability.session_meter import SessionMeter
from service.admission.desk import AdmissionDesk, AdmissionTicket
from service.call import Call
from service.checks import Limits
from service.clock import Clock
from service.controls import Controls
from service.events import EndReason, Event, Send
from service.failures import outcome_of
from service.identity.allowance import Allowance, NoQuotas, Quotas
from service.identity.permission import check_order, seconds_left
from service.identity.principal import Forbidden, QuotaExceeded
from service.ledger.account import Billed, SessionAccount, whole
from service.ledger.interface import Audit, AuditEntry, Detail, Kind, Ledger, NoAudit, NoLedger, Outcome
from service.orders import Order
from service.records.keeper import SessionKeeper
from service.sessions.file import VideoFile, video_file
from service.sessions.opening import encoding_timing, open_session, trace_attributes
from service.sessions.session import DRAINING, Opening, ServedSession
from service.sessions.sourcing import SourceTerms
from service.sessions.steering import Steering
from service.watching.hub import Hub, WatchLimits

JobSink = Callable[[FrameChunk, SessionRecord], Awaitable[None]]
"""Takes a chunk, with the session's record as it is after it. The session waits meanwhile."""


class SessionRunner:
    """Makes and runs sessions of all models that one desk admits. It holds what they have in common.

    Args:
        pipelines: by model name.
        desk: says which sessions may run.
        keeper: writes sessions down; closed by whoever made it.
        limits: of what one caller may ask for.
        metrics: where to count.
        clock: time for pacing and measurements.
        quotas: of tenants; None where nobody has any.
        ledger: takes what sessions use; None for a server that bills nobody.
        audit: is told of each session at its end.
        hub: shows sessions to those who watch them; None where nobody does.
        decoders: makes a pool of processes that decode images and videos: one for uploads, and one for sources.
        wall: Unix time.
    """

    def __init__(
        self,
        pipelines: Mapping[str, VideoPipeline],
        desk: AdmissionDesk,
        keeper: SessionKeeper,
        limits: Limits,
        metrics: Metrics,
        clock: Clock,
        quotas: Quotas | None = None,
        *,
        ledger: Ledger | None = None,
        audit: Audit | None = None,
        hub: Hub | None = None,
        decoders: Callable[[], UploadDecoders] = UploadDecoders,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._pipelines = pipelines
        self._desk = desk
        self._keeper = keeper
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._quotas = NoQuotas() if quotas is None else quotas
        self._ledger = ledger or NoLedger()
        self._audit = audit or NoAudit()
        self._hub = hub or Hub(WatchLimits(all=0), clock)
        self._wall = wall
        for model in pipelines:
            metrics.of(model)  # its series are there before its first session
        self._sessions: set[ServedSession] = set()
        self._draining = asyncio.Event()
        self._handed_over = asyncio.Event()
        self._decoders = decoders()
        # Their own, so that no live session waits for the uploads of others, which may take long each.
        self._source_decoders = decoders()
        self._open = 0

    @property
    def open_sessions(self) -> int:
        """Sessions that wait or run."""
        return self._open

    @property
    def enhanced_sessions(self) -> int:
        """Sessions that wait or run and want their frames enhanced."""
        return sum(bool(served.order.request.enhance) for served in self._sessions)

    def close(self) -> None:
        """Free what is held beyond calls. Call it after the last one."""
        self._decoders.close()
        self._source_decoders.close()

    def drain(self) -> None:
        """Take no more sessions. Those that play go on; those that wait or are paused end, since they lose nothing by going elsewhere."""
        self._draining.set()
        self._hub.drain()
        for session in self._sessions:
            session.drain()

    def hand_over(self) -> None:
        """End all sessions before their next chunk, to go on elsewhere. A file fails, and so does a call that is not open yet."""
        self._handed_over.set()
        for session in self._sessions:
            session.hand_over()
        self._hub.hand_over()

    async def run(self, order: Order, send: Send, call: Call, controls: Controls | None = None) -> None:
        """Serve `order`: send its events, and apply the caller's `controls` meanwhile.

        Raises:
            CapacityExceeded, StageUnavailable: also while it runs.
            Forbidden, QuotaExceeded: the order is not for this caller, or its tenant has no more; QuotaExceeded also while it runs.
            SessionMoved: another connection resumed the session.
            InvalidRequest: from `controls`, or the session cannot be opened.
            ReaderStalled: from `send`.
        """
        with self._noted(order, call):
            async with self._allowed(order, call) as allowance, self._admitted(order, call) as served:
                served.account = self._account(served, call)
                allowance.follow(lambda: served.sent_s, served.fail)
                steering = None if controls is None else Steering(controls, self._limits, self._clock)
                with self._hub.showing(order.watch_token, call.principal.tenant) as show:
                    await served.serve(_shown(send, show), steering)
                call.outcome = served.reason.value

    async def make_file(self, order: Order, call: Call, max_bytes: int, placement: Placement | None = None) -> VideoFile:
        """Serve `order` as a file of at most `max_bytes`, with its pictures placed as `placement` says.

        Raises:
            CapacityExceeded, StageUnavailable: also while it runs.
            Forbidden, QuotaExceeded: the order is not for this caller, or its tenant has no more.
            InvalidRequest: the session cannot be opened.
            FileTooLarge: the file does not fit.
        """
        with self._noted(order, call):
            async with self._allowed(order, call) as allowance, self._admitted(order, call) as served:
                await served.wait_until_admitted()
                began = self._wall()
                file = await video_file(served, max_bytes, self._clock, placement)
                # Not before: a file that fails costs nothing.
                allowance.follow(lambda: file.ended.usage.video_s, served.fail)
                self._ledger.record(whole(self._billed(order, call), replace(file.ended.usage, text_s=served.text_s), began))
                return file

    def _allowed(self, order: Order, call: Call) -> AbstractAsyncContextManager[Allowance]:
        """What the caller may use for `order`. Raises Forbidden."""
        check_order(order, call.principal)
        return self._quotas.session(call.principal.tenant, seconds_left(order))

    def has_room(self, model: str, beside: int = 0) -> bool:
        """Whether a job of `model` and of no tenant in particular would get a slot now, if `beside` more jobs ran already."""
        config = self._pipelines[model].config
        ask = Ask("", config.work(config.num_steps, config.guidance), paced=False, model=model)
        return not self._draining.is_set() and self._desk.has_room(ask, beside)

    async def make_job(self, order: Order, call: Call, sink: JobSink, opened: Callable[[float], None] = lambda _: None) -> None:
        """Hand the chunks of `order` to `sink`, if there is a slot for it now: a job does not stand in line.

        Args:
            opened: told, before the first chunk, how long the text stage's device worked on prompts and upload.

        Raises:
            CapacityExceeded: there is no slot.
            StageUnavailable: also while it runs; so far as `sink` was told, the work is not lost.
            InvalidRequest: the session cannot be opened.
        """
        if not self._desk.has_room(self._ask(order, call)):
            raise CapacityExceeded("no slot is free for a job", retry_after_s=1.0)
        async with self._admitted(order, call) as served:
            await served.wait_until_admitted()
            opened(served.text_s)
            async with aclosing(served.session.events()) as events:
                async for event in events:
                    if isinstance(event, FrameChunk):
                        served.meter.made(event, self._clock.now())
                        await sink(event, served.session.record())
            served.check()
            if served.reason is not EndReason.COMPLETED:
                raise StageUnavailable(DRAINING)

    def _ask(self, order: Order, call: Call) -> Ask:
        """What the session of `order` asks of admission."""
        work = order.config.work(order.request.num_steps, order.request.scale(order.config))
        resumed = order.resume is not None and order.claim is not None
        # With other steps, a strength would mean other shares of noise.
        return Ask(
            self._desk.tenant(call.tenant), work, paced=order.max_lead_s > 0, resumed=resumed, model=order.config.name,
            fixed=order.request.strength is not None,
        )  # fmt: skip

    def _account(self, served: ServedSession, call: Call) -> SessionAccount:
        """What the session is billed by. One that goes on had its prompt embedded on the account of an earlier connection."""
        order, goes_on = served.order, served.order.goes_on
        return SessionAccount(
            self._ledger, self._billed(order, call), order.config.fps, self._wall,
            resumed_at=served.session.next_frame if goes_on else None, text_seconds=0.0 if goes_on else served.text_s,
            enhance=order.request.enhance,
        )  # fmt: skip

    @contextmanager
    def _noted(self, order: Order, call: Call) -> Iterator[None]:
        """Write into the audit log how the session ends. Only errors that hold nothing of the prompt give their sentence."""
        outcome, ended, reason = Outcome.ALLOWED, "cancelled", ""
        try:
            yield
            ended = call.outcome
        except (Forbidden, QuotaExceeded) as error:
            outcome, ended, reason = Outcome.DENIED, outcome_of(error), str(error)
            raise
        except Exception as error:
            outcome, ended = Outcome.FAILED, outcome_of(error)
            raise
        finally:
            detail: Detail = {"door": call.door, "model": order.config.name, "ended": ended, "resumed": order.goes_on}
            entry = AuditEntry(
                operation="session", outcome=outcome, principal=call.principal, resource=order.request.session_id, reason=reason,
                address=call.address, request_id=call.request_id, detail=detail,
            )  # fmt: skip
            self._audit.note(entry)

    def _billed(self, order: Order, call: Call) -> Billed:
        return Billed(
            source=order.request.session_id, tenant=call.principal.tenant or self._desk.tenant(call.tenant), door=call.door,
            model=order.config.name, tier="live" if order.max_lead_s > 0 else "unpaced", kind=Kind.SESSION,
        )  # fmt: skip

    @asynccontextmanager
    async def _admitted(self, order: Order, call: Call) -> AsyncGenerator[ServedSession, None]:
        """A session in line or with a slot, on its tenant's account. It is opened meanwhile, and its steps follow its ticket's.

        A session that goes on is taken from its holder only once it has a place here and can be opened.

        Raises:
            CapacityExceeded: there is no place.
            StageUnavailable: draining, or the text encoder stayed away.
        """
        if self._draining.is_set():
            raise StageUnavailable(DRAINING)
        arrived = self._clock.now()
        ask = self._ask(order, call)
        account = ask.tenant
        config, steps, scale = order.config, order.request.num_steps, order.request.scale(order.config)
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
            opening = Opening(arrived, encoding_timing(session, encoded - asked))
            paced, numerics = order.max_lead_s > 0, session.context().numerics
            meter = SessionMeter(
                self._metrics.of(config.name), account, order.config.fps, paced=paced, door=call.door, trace=call.trace, numerics=numerics
            )
            meter.encoded(opening.encoding, asked, encoded)
            sources = SourceTerms(self._source_decoders, self._limits, account)
            served = ServedSession(
                order, session, ticket, meter, opening, self._keeper, call.principal.tenant, self._clock, sources,
                self._hub.offered(order.watch_token),
            )  # fmt: skip

            def granted(work: int) -> None:
                session.set_steps(config.steps_within(work, steps, scale))

            ticket.follow(granted, lambda: served.end(EndReason.PAUSED))
            if self._draining.is_set():
                served.drain()
            self._sessions.add(served)
            try:
                yield served
            finally:
                meter.ended()
                self._sessions.discard(served)

    async def _opened(self, order: Order, account: str) -> Session:
        session = await unless(self._handed_over, open_session(self._pipelines[order.config.name], order, self._decoders, account))
        if session is None:
            raise StageUnavailable(DRAINING)
        return session

    @contextmanager
    def _entered(self, ask: Ask, token: str) -> Iterator[AdmissionTicket]:
        count = self._metrics.admissions_total
        try:
            with self._desk.enter(ask, token) as ticket:
                answer = "waiting" if not ticket.admitted else "degraded" if ticket.steps < ask.steps else "admitted"
                count.labels(ask.model, ask.tenant, answer).inc()
                yield ticket
        except CapacityExceeded:
            count.labels(ask.model, ask.tenant, "refused").inc()
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


def _shown(send: Send, show: Callable[[Event], None]) -> Send:
    """`send`, and show the same to those who watch. They do not wait for the caller, nor the caller for them."""

    async def shown(event: Event) -> None:
        show(event)
        await send(event)

    return shown
