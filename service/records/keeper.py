"""Keeps the record of each running session in the store, beside the stream and never in its way, and finds sessions again.

Each session has one writer task with at most one write under way; what changed meanwhile goes with the next write. One task makes the
rounds of all sessions: it wakes the writers of those that changed, and prolongs the records of those that did not, many in one call. So a
session whose viewer pauses costs next to nothing. A store that is away or slow is counted, complained of now and then, and tried again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from model_core.errors import StageUnavailable
from model_core.pipeline import Session
from model_core.session_log import SessionRecord
from model_core.tasks import cancel_and_wait, run_in_thread
from observability.metrics import Metrics
from service.clock import Clock
from service.records.store import LeaseState, SessionMoved, SessionNotFound, SessionStore, StoreUnavailable

T = TypeVar("T")

_COMPLAIN_EVERY_S = 30.0
# A round visits so many parts of the sessions one after the other, so that their writes do not all come at once.
_PARTS = 4
_AT_ONCE = 256  # sessions in one call of the store
# A client whose connection breaks after the last frame may still come back for the Ended.
_COMPLETED_TTL_S = 30.0
_UNKNOWN = "resume.token: no session has it; it is unknown, has expired, or its session was stopped"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperPolicy:
    """Seconds: how long a record outlives its last write, from one round to the next, the limit of one call of the store."""

    ttl_s: float
    write_every_s: float
    timeout_s: float


class RecordedSession:
    """One session that is being written down. `taken` once another holder has it."""

    def __init__(self, token: str, holder: str, tenant: str, session: Session, ttl_s: float) -> None:
        self.token, self.holder, self.tenant, self.session, self.ttl_s = token, holder, tenant, session, ttl_s
        self.dirty = True
        self.writing = False
        self.taken = False
        self.over = False
        self.forget = False
        self.wake = asyncio.Event()
        self.wake.set()

    def changed(self, *, at_once: bool = False) -> None:
        """To be written in the next round, or as soon as the store is free."""
        self.dirty = True
        if at_once:
            self.wake.set()

    def end(self, *, stopped: bool = False, completed: bool = False) -> None:
        """No more changes. After a stop nobody will come back for it."""
        self.over = self.dirty = True
        self.forget = self.forget or stopped
        if completed:
            self.ttl_s = min(self.ttl_s, _COMPLETED_TTL_S)
        self.wake.set()


class SessionKeeper:
    """One for each front door.

    Args:
        store: where records go.
        policy: how often, for how long.
        metrics, clock: for counting and waiting.
        new_token: an unguessable string, for tokens and holders.
    """

    def __init__(self, store: SessionStore, policy: KeeperPolicy, metrics: Metrics, clock: Clock, new_token: Callable[[], str]) -> None:
        self._store = store
        self._policy = policy
        self._metrics = metrics
        self._clock = clock
        self.new_token = new_token
        self._complained_at: float | None = None
        self._writers: dict[asyncio.Task[None], RecordedSession] = {}
        self._parts: tuple[set[RecordedSession], ...] = tuple(set() for _ in range(_PARTS))
        self._rounds: asyncio.Task[None] | None = None

    async def find(self, token: str, tenant: str) -> SessionRecord:
        """Look, without taking the session from its holder.

        Raises:
            SessionNotFound: there is none, or it is another tenant's, which is answered the same.
            StageUnavailable: the store is away.
        """
        await self._last_write(token)
        return await self._read(await self._asked("get", self._store.get(token)), tenant)

    async def claim(self, token: str, holder: str, tenant: str) -> SessionRecord:
        """Take the session. A connection that holds it ends: one of this front door at once, another one when it next writes.

        Raises as `find`, which says first whether it is the tenant's: here it is taken before that is known.
        """
        data = await self._asked("claim", self._store.claim(token, holder))
        for recorded in (recorded for part in self._parts for recorded in part if recorded.token == token and recorded.holder != holder):
            recorded.changed(at_once=True)
        return await self._read(data, tenant)

    @asynccontextmanager
    async def keeping(self, token: str, holder: str, tenant: str, session: Session) -> AsyncGenerator[RecordedSession, None]:
        """Write `session` down while the body runs, and once more after it. Nobody but `tenant` can go on with it.

        Raises:
            SessionMoved: another holder has taken the session; the body was cancelled.
        """
        recorded = RecordedSession(token, holder, tenant, session, self._policy.ttl_s)
        body = asyncio.current_task()
        assert body is not None  # noqa: S101 - a coroutine runs in a task
        writer = asyncio.create_task(self._write(recorded, body))
        self._writers[writer] = recorded
        writer.add_done_callback(self._writers.pop)
        part = min(self._parts, key=len)
        part.add(recorded)
        if self._rounds is None or self._rounds.done():
            self._rounds = asyncio.create_task(self._make_rounds())
        try:
            yield recorded
            if recorded.taken:
                await asyncio.sleep(0)  # where a cancellation that is on its way arrives
        except asyncio.CancelledError:
            if recorded.taken and body.uncancel() == 0:
                raise SessionMoved("the session was resumed on another connection") from None
            raise
        finally:
            part.discard(recorded)
            if not recorded.over:
                recorded.end()

    async def aclose(self) -> None:
        """Let the last writes finish, then close the store."""
        if self._rounds is not None:
            await cancel_and_wait(self._rounds)
        if self._writers:
            _, late = await asyncio.wait(self._writers, timeout=2 * self._policy.timeout_s)
            await cancel_and_wait(*late)
        await self._store.aclose()

    async def _last_write(self, token: str) -> None:
        """A caller may be back before its session, which has just ended here, is written down."""
        if late := [writer for writer, recorded in self._writers.items() if recorded.token == token and recorded.over]:
            await asyncio.wait(late, timeout=self._policy.timeout_s)

    async def _make_rounds(self) -> None:
        """Until no session is left."""
        while any(self._parts):
            for part in self._parts:
                await self._clock.sleep(self._policy.write_every_s / _PARTS)
                await self._visit(list(part))

    async def _visit(self, part: Sequence[RecordedSession]) -> None:
        still = [recorded for recorded in part if not (recorded.dirty or recorded.writing)]
        for recorded in part:
            if recorded.dirty:
                recorded.wake.set()
        for first in range(0, len(still), _AT_ONCE):
            some = still[first : first + _AT_ONCE]
            try:
                states = await self._limited(
                    self._store.touch([(recorded.token, recorded.holder) for recorded in some], self._policy.ttl_s)
                )
            except StoreUnavailable as error:
                self._complain("write", error)
                return
            for recorded, state in zip(some, states, strict=True):
                if state is not LeaseState.MINE:  # the write says what is to be done about it
                    recorded.changed(at_once=True)

    async def _write(self, recorded: RecordedSession, body: asyncio.Task[object]) -> None:
        while True:
            await recorded.wake.wait()
            recorded.wake.clear()
            last = recorded.over
            if not recorded.dirty:
                continue  # it was written meanwhile
            try:
                state = await self._turn(recorded)
            except StoreUnavailable as error:
                recorded.dirty = True
                self._complain("write", error)
                state = LeaseState.MINE
            if state is LeaseState.TAKEN:
                recorded.taken = True
                if not recorded.over:
                    body.cancel()
                return
            if last:
                return

    async def _turn(self, recorded: RecordedSession) -> LeaseState:
        if recorded.over and recorded.forget:
            await self._limited(self._store.delete(recorded.token, recorded.holder))
            return LeaseState.MINE
        recorded.dirty, recorded.writing = False, True
        try:
            # Large models have large latents: joining them must not hold up the frames of other sessions.
            data = await run_in_thread(recorded.session.record(recorded.tenant).to_bytes)
            return await self._limited(self._store.put(recorded.token, recorded.holder, data, recorded.ttl_s))
        finally:
            recorded.writing = False

    async def _limited(self, call: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._policy.timeout_s):
                return await call
        except TimeoutError:
            raise StoreUnavailable(f"no answer within {self._policy.timeout_s:g} s") from None

    async def _asked(self, operation: str, call: Awaitable[bytes | None]) -> bytes | None:
        try:
            return await self._limited(call)
        except StoreUnavailable as error:
            self._complain(operation, error)
            raise StageUnavailable("sessions cannot be looked up just now: the session store does not answer") from error

    async def _read(self, data: bytes | None, tenant: str) -> SessionRecord:
        if data is None:
            raise SessionNotFound(_UNKNOWN)
        try:
            record = await run_in_thread(SessionRecord.from_bytes, data)  # as long as it takes to write a large one
        except ValueError as error:
            self._complain("read", error)
            raise SessionNotFound("resume.token: the session's record cannot be read") from None
        if record.tenant not in (None, tenant):  # one of an older version says nothing
            raise SessionNotFound(_UNKNOWN)
        return record

    def _complain(self, operation: str, error: Exception) -> None:
        self._metrics.session_store_errors_total.labels(operation).inc()
        now = self._clock.now()
        if self._complained_at is None or now - self._complained_at >= _COMPLAIN_EVERY_S:
            self._complained_at = now
            log.warning("session store, %s: %s; streams go on, but sessions may not be resumable", operation, error)
