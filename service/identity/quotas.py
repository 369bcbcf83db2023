"""What a tenant may use, at all front doors together: asked for before a session begins, settled when it has ended.

Work for a tenant without limits costs no call of the database beyond one look in a while. What is used is written down beside the
sessions, never in their way.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from sqlalchemy import Connection

from model_core.errors import StageUnavailable
from model_core.tasks import cancel_and_wait, finished, unless
from service.clock import Clock
from service.database.engine import Database
from service.identity import limits as table
from service.identity.allowance import Allowance
from service.identity.limits import Kind, Progress, Reservation, Reserved, TenantLimits
from service.identity.principal import QuotaExceeded
from service.identity.remembered import Lookup, Remembered
from service.identity.standings import Standings

# A reservation whose front door died is free after so long.
RESERVED_FOR_S = 60.0
_RENEW_EVERY_S = 15.0
# Of a session without an end. Its seconds are looked at once in a renewal, so it may use up to a renewal's seconds beyond its budget.
_SLICE_S = 60.0
_AGAIN_S = 1.0
_MOST_TENANTS = 10_000
# What could not be written down while the database was away. Beyond it the oldest is lost, and its tenant has used so much less.
_MOST_UNSETTLED = 10_000

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Held:
    """A reservation of this front door, and what is known of it."""

    of: Reservation
    allowance: Allowance
    reserved_s: float  # in all, with what is settled; infinite where seconds are not limited
    until: float  # as the table has it, or is about to
    settled_s: float = 0.0
    over: bool = False
    used_s: float = 0.0  # at the end

    def progress(self, until: float) -> Progress:
        """What is to be written down next. Each time it lasts a little longer than the time before, which tells two writes apart."""
        self.until = max(until, self.until + 0.001)
        used_s = max(self.settled_s, self.used_s if self.over else self.allowance.used_s())
        limited = math.isfinite(self.reserved_s)
        left_s = max(0.0, self.reserved_s - used_s) if limited else 0.0
        wanted_s = max(0.0, self.of.slice_s - left_s) if limited and self.of.seconds is None and not self.over else 0.0
        return Progress(
            of=replace(self.of, expires_at=self.until), left_s=left_s, spent_s=used_s - self.settled_s, wanted_s=wanted_s, over=self.over
        )

    def written(self, progress: Progress, granted_s: float) -> None:
        """`progress` is in the table. A session that has used all that it may have ends."""
        self.settled_s += progress.spent_s
        self.reserved_s += granted_s
        if not self.over and progress.wanted_s and self.settled_s >= self.reserved_s:
            tenant, used_s = self.of.tenant, self.settled_s
            sentence = f"budget_seconds of tenant {tenant} is spent; got a session that has used {used_s:g} s and goes on"
            self.allowance.fail(QuotaExceeded(sentence, limit="budget_seconds", allowed=self.reserved_s, used=used_s))


class TenantQuotas:
    """Limits of the table, for the sessions of one front door. One event loop owns it.

    Args:
        database: with tenants and reservations.
        cache_s: how long it is remembered that a tenant has no limits.
        clock: time between renewals.
        wall: Unix time, the same at all front doors.
        new_id: names a reservation.
        standings: told of requests that were counted.
    """

    def __init__(
        self,
        database: Database,
        cache_s: float,
        clock: Clock,
        wall: Callable[[], float],
        new_id: Callable[[], str] = lambda: secrets.token_hex(12),
        standings: Standings | None = None,
    ) -> None:
        self._database, self._clock, self._wall, self._new_id = database, clock, wall, new_id
        self._standings = Standings(clock, wall) if standings is None else standings
        self._limits: Lookup[str, TenantLimits] = Lookup(self._read, Remembered(cache_s, _MOST_TENANTS, clock))
        self._held: dict[str, _Held] = {}
        self._ended: list[_Held] = []  # still to be written down
        self._wake = asyncio.Event()
        self._renew_at = clock.now() + _RENEW_EVERY_S
        self._writing: asyncio.Task[None] | None = None
        self._running: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def session(self, tenant: str, seconds: float | None) -> AsyncGenerator[Allowance, None]:
        """See `service.identity.allowance.Quotas`."""
        held = await self._reserve(tenant, seconds) if (await self._limits.get(tenant)).limited else None
        if held is None:
            yield Allowance()
            return
        try:
            yield held.allowance
        finally:
            self._end(held, held.allowance.used_s())

    async def aclose(self) -> None:
        """Write down what has ended. What cannot be written expires."""
        if self._running is not None:
            await cancel_and_wait(self._running)
        try:
            await self._write()
        except StageUnavailable as error:
            log.warning("what %d sessions have used is not written down: %s", len(self._ended), error)

    async def _reserve(self, tenant: str, seconds: float | None) -> _Held | None:
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._keep_writing())
        while self._writing is not None:
            await asyncio.wait({self._writing})
        now = self._wall()
        until = now + RESERVED_FOR_S
        asked = Reservation(id=self._new_id(), tenant=tenant, kind=Kind.SESSION, seconds=seconds, expires_at=until, slice_s=_SLICE_S)
        held = _Held(asked, Allowance(), math.inf, until)
        # Places of sessions that have ended here are free before one more is asked for.
        ended = self._taken(lambda each: each.of.tenant == tenant)
        try:
            answer = await finished(self._written(ended, [], lambda connection: _reserve(connection, asked, now)))
        except asyncio.CancelledError:
            self._end(held, 0.0)
            raise
        if isinstance(answer, QuotaExceeded):
            raise answer
        if answer is None:
            return None
        if answer.requests is not None:
            self._standings.note(tenant, answer.requests)
        held.reserved_s = answer.seconds
        self._held[asked.id] = held
        return held

    def _end(self, held: _Held, used_s: float) -> None:
        held.over, held.used_s = True, used_s
        self._held.pop(held.of.id, None)
        self._ended.append(held)
        if len(self._ended) > _MOST_UNSETTLED:
            lost = self._ended.pop(0)
            log.error("what a session of tenant %s has used is lost: the database has been away for too long", lost.of.tenant)
        self._wake.set()

    async def _read(self, tenant: str) -> TenantLimits:
        return await self._database.run(lambda connection: table.limits_of(connection, tenant), write=False)

    async def _keep_writing(self) -> None:
        """Write down what has ended at once, and renew what goes on now and then."""
        while True:
            await unless(self._wake, self._clock.sleep(_RENEW_EVERY_S))
            self._wake.clear()  # before what has ended is taken: one that ends during the write wakes it again
            try:
                await self._write()
            except StageUnavailable as error:
                log.warning("what sessions have used is not written down yet: %s", error)
                await self._clock.sleep(_AGAIN_S)

    async def _write(self) -> None:
        """Write down what has ended, and renew what goes on if it is time to. What is being written is not cancelled with the caller."""
        while self._writing is not None:
            await asyncio.wait({self._writing})
        ended = self._taken(lambda _: True)
        going_on: list[_Held] = []
        if self._clock.now() >= self._renew_at:
            self._renew_at = self._clock.now() + _RENEW_EVERY_S
            going_on = list(self._held.values())
        if ended or going_on:
            self._writing = asyncio.create_task(self._written(ended, going_on, lambda _: None))
            self._writing.add_done_callback(self._was_written)
            await asyncio.shield(self._writing)

    def _was_written(self, task: asyncio.Task[None]) -> None:
        self._writing = None
        if not task.cancelled():
            task.exception()  # marks it as seen, where nobody waits for it

    def _taken(self, wanted: Callable[[_Held], bool]) -> list[_Held]:
        """What has ended and is `wanted`. It is the caller's to write down."""
        taken = [each for each in self._ended if wanted(each)]
        self._ended = [each for each in self._ended if not wanted(each)]
        return taken

    async def _written(self, ended: list[_Held], going_on: list[_Held], then: Callable[[Connection], T]) -> T:
        """What `then` comes to, in the transaction in which the others are written down. Where it fails, `ended` is still to be written."""
        work, now = [*ended, *going_on], self._wall()
        progress = [held.progress(now + RESERVED_FOR_S) for held in work]

        def write(connection: Connection) -> tuple[dict[str, float], T]:
            return (table.write_down(connection, progress, now) if progress else {}), then(connection)

        try:
            granted, answer = await self._database.run(write)
        except BaseException:
            self._ended = [*ended, *self._ended]
            raise
        for held, done in zip(work, progress, strict=True):
            held.written(done, granted.get(held.of.id, 0.0))
        return answer


def _reserve(connection: Connection, asked: Reservation, now: float) -> Reserved | QuotaExceeded | None:
    """A refusal is an answer: what was written down before it stays."""
    try:
        return table.reserve(connection, asked, now)
    except QuotaExceeded as refused:
        return refused
