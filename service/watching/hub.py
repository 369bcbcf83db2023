"""Brings those who watch a session together with whoever runs it: a session of this front door, or another front door that has it.

A session that runs here publishes. One that is watched here and runs elsewhere is pulled from there by one task, however many watch. When
a session's connection is lost, those who watch wait for it to go on, here or elsewhere, for a while.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field

from model_core.errors import CapacityExceeded, HeadraceError, StageUnavailable
from model_core.tasks import unless
from service.clock import Clock
from service.events import Ended, EndReason, Event, Shown, Usage
from service.failures import NotServed
from service.records.store import SessionNotFound
from service.watch_token import CHARS
from service.watching.elsewhere import WAIT_S, Batch, Elsewhere, Nowhere, Source
from service.watching.moving import Moving
from service.watching.show import Place, Show, Watcher

_LOOK_AGAIN_S = 0.5
# How long a token is looked for that nobody has watched here. A front door that has just started is not known to the others at once.
_LOOK_FOR_S = 2.0
# Tokens that are looked for at other front doors at once, and that nobody watches yet.
_MOST_SEARCHES = 32
# A front door that asks counts as one that watches for so long.
_ASKED_FOR_S = 5 * WAIT_S
_RETRY_S = 2.0
# Sessions that are over, and of whose end other front doors may still have to hear.
_MOST_ENDED = 16
_NOT_YET = Place(-1, 0, 0)

NOT_FOUND = "token: no session that runs has it; it is unknown, or its session is over"
GONE = "token: the session's own viewer went away and did not come back"
DRAINING = "the server is shutting down; watch at another one"
NOBODY = "this server shows sessions to nobody but their own viewers"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchLimits:
    """Of one front door.

    Attributes:
        session: who may watch one session.
        tenant: who may watch the sessions of one tenant, together.
        all: who may watch anything. 0: nobody, and no session has a token for it.
        relays: front doors that may ask at once for what sessions here show.
        linger_s: how long those who watch wait for a session whose connection was lost.
    """

    session: int = 1000
    tenant: int = 2000
    all: int = 4000
    relays: int = 64
    linger_s: float = 30.0


@dataclass(slots=True, eq=False)
class _Shown:
    """A show with those who have to do with it. `publisher` alone may publish: a connection, or the task that follows."""

    token: str
    show: Show
    publisher: object | None = None
    following: asyncio.Task[None] | None = None
    watchers: int = 0
    asked_until: float = 0.0

    @property
    def is_here(self) -> bool:
        return self.publisher is not None and self.following is None


@dataclass(slots=True)
class _Counts:
    watchers: int = 0
    tenants: Counter[str] = field(default_factory=Counter)
    asking: int = 0


class Hub:
    """One for each front door.

    Args:
        limits: see there.
        clock: for waits.
        elsewhere: the other front doors.
        observe: is told how many watch, whenever that changes.
    """

    def __init__(
        self, limits: WatchLimits, clock: Clock, elsewhere: Elsewhere | None = None, observe: Callable[[int], None] = lambda _: None
    ) -> None:
        self._limits, self._clock, self._observe = limits, clock, observe
        self.elsewhere: Elsewhere = elsewhere or Nowhere()
        self._shown: dict[str, _Shown] = {}
        self._ended: deque[_Shown] = deque(maxlen=_MOST_ENDED)
        self._counts = _Counts()
        self._moving = Moving(clock, limits.linger_s)
        self._telling: asyncio.Task[None] | None = None
        self._numbers = itertools.count()
        self._draining = False
        self._handed_over = False

    @property
    def watchers(self) -> int:
        """Who watches now."""
        return self._counts.watchers

    # --- Sessions that run here.

    def offered(self, token: str) -> str:
        """The token to watch, as callers are told it: empty where nobody may."""
        return token if self._limits.all else ""

    @contextmanager
    def showing(self, token: str, tenant: str) -> Iterator[Callable[[Event], None]]:
        """The session of `token` runs here; give what it sends to what this hands out. An empty token shows nothing to anybody."""
        if not self.offered(token):
            yield lambda _: None
            return
        self._moving.arrived(token)
        shown = self._of(token)
        me = shown.publisher = object()  # in place of another connection of the session, or of a task that looked for it
        self._unfollow(shown)
        shown.show.tenant = tenant

        def publish(event: Event) -> None:
            if shown.publisher is me:
                self._publish(shown, event)

        try:
            yield publish
        finally:
            if shown.publisher is me:
                shown.publisher = None
                self._left(shown)

    def drain(self) -> None:
        """Take nobody new. Those who watch sessions of other front doors leave; the others stay as long as their sessions."""
        if not self._draining:
            here = [shown.token for shown in self._shown.values() if shown.is_here and not shown.show.over]
            self._telling = asyncio.create_task(self.elsewhere.leaving(here)) if here else None
        self._draining = True
        for shown in [shown for shown in self._shown.values() if not shown.is_here]:
            self._leave(shown)

    def hand_over(self) -> None:
        """Sessions end here, to go on elsewhere, and with them goes who watches."""
        self._draining = self._handed_over = True
        for shown in list(self._shown.values()):
            self._leave(shown)

    def expect(self, tokens: Iterable[str]) -> None:
        """Another front door shuts down, where these sessions run: see `Elsewhere.leaving`."""
        self._moving.expect(tokens)

    async def after(self, token: str, place: Place | None) -> Batch | None:
        """For another front door: what a session that runs here has shown since `place`. See `Source`.

        Raises:
            CapacityExceeded: too many ask.
        """
        shown = self._answering(token)
        if shown is None:
            return None
        if self._counts.asking >= self._limits.relays:
            raise CapacityExceeded(f"other front doors may ask for {self._limits.relays} sessions at once", retry_after_s=_RETRY_S)
        self._counts.asking += 1
        shown.asked_until = self._clock.now() + _ASKED_FOR_S
        shown.show.watched = True
        try:
            events: list[Shown] = []
            then = place if place is not None and place.show == shown.show.number else None
            if then is None or not shown.show.now(then)[0]:
                await self._something_new(shown.show, then)
            while (found := shown.show.now(then))[0]:
                events += [item.event for item in found[0]]
                then = found[1]
            if then is None and shown.show.over:
                return None
            return Batch(then or _NOT_YET, shown.show.tenant, tuple(events))
        finally:
            self._counts.asking -= 1

    def has(self, token: str) -> bool:
        """Whether the session runs here."""
        shown = self._shown.get(token)
        return shown is not None and shown.is_here and not self._draining

    def _answering(self, token: str) -> _Shown | None:
        """What another front door may be told of: a session that runs here, or has just ended here."""
        if self.has(token):
            return self._shown[token]
        return next((shown for shown in self._ended if shown.token == token), None)

    async def _something_new(self, show: Show, place: Place | None) -> None:
        over = asyncio.Event()
        waking = asyncio.create_task(self._wake_later(over))
        try:
            with suppress(Exception):  # whatever ended the show, nothing is new
                await unless(over, show.after(place))
        finally:
            waking.cancel()

    async def _wake_later(self, event: asyncio.Event) -> None:
        await self._clock.sleep(WAIT_S)
        event.set()

    # --- Those who watch.

    @asynccontextmanager
    async def watching(self, token: str) -> AsyncGenerator[Watcher, None]:
        """Somebody watches as long as this is entered.

        Raises:
            SessionNotFound: no session that runs has the token.
            NotServed: nobody may watch.
            CapacityExceeded: too many watch already, or the front door that has the session is busy.
            StageUnavailable: the server shuts down, or other front doors do not say whether they have the session.
        """
        if not self._limits.all:
            raise NotServed(NOBODY)
        if self._draining:
            raise StageUnavailable(DRAINING)
        shown = self._found(token)
        self._check("in all, at this front door", self._limits.all, self._counts.watchers)
        self._check("one session", self._limits.session, shown.watchers)
        self._joined(shown, 1)
        tenant: str | None = None
        try:
            started = await shown.show.begun()
            if started is None:
                raise SessionNotFound(NOT_FOUND)
            self._check("the sessions of one tenant", self._limits.tenant, self._counts.tenants[shown.show.tenant])
            tenant = shown.show.tenant
            self._counts.tenants[tenant] += 1
            yield Watcher(shown.show, started)
        finally:
            if tenant is not None:
                self._counts.tenants[tenant] -= 1
                if not self._counts.tenants[tenant]:
                    del self._counts.tenants[tenant]
            self._joined(shown, -1)

    @staticmethod
    def _check(what: str, most: int, there: int) -> None:
        if there >= most:
            raise CapacityExceeded(f"at most {most} may watch {what}; {there} do", retry_after_s=_RETRY_S)

    def _joined(self, shown: _Shown, change: int) -> None:
        shown.watchers += change
        shown.show.watched = shown.watchers > 0 or shown.asked_until > self._clock.now()
        self._counts.watchers += change
        self._observe(self._counts.watchers)
        if not shown.watchers and not shown.is_here:
            self._forget(shown)

    def _found(self, token: str) -> _Shown:
        """The show of `token`; if there is none here, one that looks for the session elsewhere."""
        shown = self._shown.get(token)
        if shown is not None:
            return shown
        if len(token) != CHARS or isinstance(self.elsewhere, Nowhere):
            raise SessionNotFound(NOT_FOUND)
        moves = token in self._moving
        searches = sum(each.show.started is None and not each.is_here and each.token not in self._moving for each in self._shown.values())
        if searches >= _MOST_SEARCHES and not moves:
            raise CapacityExceeded(f"at most {_MOST_SEARCHES} sessions may be looked for at once; {searches} are", retry_after_s=_RETRY_S)
        shown = self._of(token)
        self._follow(shown, SessionNotFound(GONE if moves else NOT_FOUND), max(_LOOK_FOR_S, self._moving.wait_s(token)))
        return shown

    def _of(self, token: str) -> _Shown:
        shown = self._shown.get(token)
        if shown is None or shown.show.over:
            shown = self._shown[token] = _Shown(token, Show(next(self._numbers)))
        return shown

    def _publish(self, shown: _Shown, event: Shown | Event) -> None:
        show = shown.show
        show.watched = shown.watchers > 0 or shown.asked_until > self._clock.now()
        show.publish(event)

    # --- Sessions that are not here, or not any more.

    def _left(self, shown: _Shown) -> None:
        """Its connection has ended. Unless the session has, those who watch wait for another."""
        if shown.show.over and shown.asked_until > self._clock.now():
            self._ended.append(shown)
        if shown.show.over or not shown.watchers:
            self._forget(shown)
        elif self._draining:
            self._leave(shown)
        else:
            self._follow(shown, SessionNotFound(GONE), self._limits.linger_s)

    def _leave(self, shown: _Shown) -> None:
        """Those who watch are told to go elsewhere."""
        self._unfollow(shown)
        started = shown.show.started
        if started is None:
            shown.show.end(StageUnavailable(DRAINING))
        else:
            shown.show.publish(Ended(EndReason.DRAINING, Usage(fps=started.fps)))
        if not shown.is_here:
            self._forget(shown)

    def _forget(self, shown: _Shown) -> None:
        self._unfollow(shown)
        if self._shown.get(shown.token) is shown:
            del self._shown[shown.token]

    def _unfollow(self, shown: _Shown) -> None:
        if shown.following is not None:
            shown.following.cancel()
            shown.following = None

    def _follow(self, shown: _Shown, lost: Exception, patience_s: float) -> None:
        shown.following = asyncio.create_task(self._guarded(shown, lost, patience_s))

    async def _guarded(self, shown: _Shown, lost: Exception, patience_s: float) -> None:
        try:
            await self._followed(shown, lost, patience_s)
        except Exception as error:
            log.exception("a session that is watched cannot be followed")
            shown.show.end(error)  # nobody waits for ever
            shown.following = shown.publisher = None
            self._forget(shown)

    async def _followed(self, shown: _Shown, lost: Exception, patience_s: float) -> None:
        """Show what another front door shows, whichever has the session, until nobody has had it for `patience_s`.

        While some do not say whether they have it, those who have seen a part of it wait for longer, by `linger_s` at most.
        """
        shown.publisher = object()
        until, more_s = self._clock.now() + patience_s, self._limits.linger_s
        while True:
            asked = self._clock.now()
            unsure: HeadraceError | None = None
            try:
                source = await self.elsewhere.find(shown.token)
                if source is not None and await self._pulled(shown, source):
                    lost, more_s, until = SessionNotFound(GONE), self._limits.linger_s, self._clock.now() + self._limits.linger_s
            except HeadraceError as error:
                unsure = error
                if shown.show.started is not None:
                    moved_s = min(self._clock.now() - asked + _LOOK_AGAIN_S, more_s)
                    until, more_s = until + moved_s, more_s - moved_s
            if shown.show.over:
                break
            if self._clock.now() >= until:
                shown.show.end(unsure or lost)
                break
            await self._clock.sleep(_LOOK_AGAIN_S)
        shown.following = shown.publisher = None
        self._forget(shown)

    async def _pulled(self, shown: _Shown, source: Source) -> bool:
        """Publish what `source` has, until it has the session no more. False where it never had. Raises what it first raises."""
        place: Place | None = None
        while not shown.show.over:
            try:
                batch = await source.after(place)
            except HeadraceError:
                if place is None:
                    raise
                batch = None
            if batch is None:
                break
            place, shown.show.tenant = batch.place, batch.tenant
            for event in batch.events:
                if isinstance(event, Ended) and event.reason is EndReason.DRAINING:
                    return True  # that front door shuts down; the session goes on at another
                self._publish(shown, event)
        return place is not None
