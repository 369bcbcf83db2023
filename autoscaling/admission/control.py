"""Admission over time: who is in line and who runs, moved on by events. `admission` and `brownout` decide; this keeps the books.

    arrive   → Admit, Wait or Reject
    leave    in line, running or set aside
    pause    its viewer stands still; when that lasts, others get its slot and it is set aside
    resume   → Admit or Wait
    observe  a new capacity

Every call is told the time, and is followed by `changes()`: what became by it of sessions other than the one that it was about. The front
door and a simulator drive the same object.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace

from autoscaling.admission.brownout import BrownOut, Running
from autoscaling.admission.decide import AdmissionConfig, Admit, Ask, Decision, Reject, View, Wait, decide
from autoscaling.admission.fairness import FairShares, Waiter
from autoscaling.admission.lengths import Lengths
from autoscaling.admission.sessions import KnownSession
from autoscaling.capacity.profile import Capacity
from autoscaling.reports import ControlStatistics

_NOBODY = -1  # no key


@dataclass(frozen=True, slots=True)
class Change:
    """Session `key` runs with `steps` from now on; 0: it was set aside, or is `ended`. `admitted`: it waited until now."""

    key: int
    steps: int
    admitted: bool
    ended: bool = False


class AdmissionControl:
    """See the module's docstring. One owner, who may put another `config` in place between two calls."""

    def __init__(self, config: AdmissionConfig, capacity: Capacity, now: float) -> None:
        self.config = config
        self._capacity = capacity
        self._now = now
        self._brownout = BrownOut()
        self._shares = {True: FairShares(), False: FairShares()}  # of each line: paced sessions, and jobs
        self._running: dict[int, KnownSession] = {}
        self._kinds: Counter[tuple[Ask, int]] = Counter()  # of those that run, by what they asked for and the steps that they have
        self._line: dict[int, KnownSession] = {}  # in order of arrival
        self._aside: dict[int, KnownSession] = {}
        self._paused: dict[int, None] = {}  # of those that run
        self._first: dict[int, int] = {}  # of a further call of a session, the key that it has in the above
        self._named: dict[str, int] = {}
        self._changes: list[Change] = []
        self._behind: dict[int, None] = {}  # of those that run, who does not have the level's steps yet, in order
        self._turns = 1.0  # of those, how many may change now
        self._lengths = Lengths()
        self._arrivals = self._departures = 0

    def arrive(self, key: int, ask: Ask, now: float, jitter: float, name: str = "") -> Decision:
        """Decide about a new `key`. A Reject leaves nothing behind.

        If the session `name` is already here on the same terms, the call shares its slot or place: it is one session, not two.
        """
        self._advance(now)
        self._arrivals += ask.paced
        if (here := self._known(name)) is not None and _alike(here.ask, ask):
            return self._take_part(key, here)
        self._line_up(key, KnownSession(ask, 0, [key], name))
        decision = self._decide(key, jitter, own=here is not None and here.ask.tenant == ask.tenant)
        match decision:
            case Reject():
                del self._line[key]
                self._close_accounts()
                return decision
            case Admit():
                self._admit(key, decision)
        if name:
            self._named[name] = key
        return decision

    def leave(self, key: int, now: float) -> None:
        """It ended, or gave up in line."""
        self._advance(now)
        first = self._first.pop(key, key)
        session = self._find(first)
        if session is None:
            raise KeyError(key)
        session.keys.remove(key)
        session.still.discard(key)
        if not session.keys:
            self._gone(first, session)
        elif session.still:  # one that was to take it over gave up, and who has it still pauses
            self._stand_still(first, session)
        self._settle()
        self._changes = [change for change in self._changes if change.key != key]

    def pause(self, key: int, now: float) -> None:
        """The viewer of `key` pauses."""
        self._advance(now)
        first = self._first.get(key, key)
        if (session := self._running.get(first)) is not None:
            session.still.add(key)
            self._stand_still(first, session)

    def resume(self, key: int, now: float) -> Decision:
        """The viewer of `key` goes on. A session that was set aside waits in line with those who come back, and is never refused."""
        self._advance(now)
        first = self._first.get(key, key)
        if (session := self._find(first)) is not None:
            session.still.discard(key)
        decision = self._go_on(first)
        self._changes = [change for change in self._changes if change.key != key]
        return decision

    def has_room(self, ask: Ask, beside: int = 0) -> bool:
        """Whether `ask` would run at once, if `beside` more jobs ran already. Nothing changes by asking."""
        view = self._view(_NOBODY, ask, len(self._order(paced=ask.paced)))
        return isinstance(decide(ask, replace(view, jobs=view.jobs + beside), self.config, 0.0), Admit)

    def observe(self, capacity: Capacity, now: float) -> None:
        """What the stages can do was measured anew."""
        self._advance(now)
        self._capacity = capacity
        self._settle()

    def changes(self) -> list[Change]:
        """What happened to sessions other than the one that the call was about, since this was asked last."""
        changes, self._changes = self._changes, []
        return changes

    def positions(self) -> dict[int, int]:
        """Places of those in line, 1 for the next to go; paced sessions and jobs have a line each."""
        places = {key: place for paced in (True, False) for place, key in enumerate(self._order(paced=paced), start=1)}
        return {key: place for first, place in places.items() for key in self._line[first].keys}

    def statistics(self) -> ControlStatistics:
        full = self._capacity.sessions(self.config.default_steps)
        return ControlStatistics(
            live=len(self._running),
            degraded=sum(n for (ask, steps), n in self._kinds.items() if steps < ask.steps),
            waiting=len(self._line),
            level=self._brownout.level,
            capacity=full,
            live_jobs=self._jobs(),
            waiting_jobs=sum(not s.ask.paced for s in self._line.values()),
            arrivals=self._arrivals,
            departures=self._departures,
            paused=len(self._paused),
            aside=sum(not session.ended for session in self._aside.values()),
        )

    def _advance(self, now: float) -> None:
        elapsed = max(0.0, now - self._now)
        self._now = max(self._now, now)
        self._turns = min(max(1.0, self._turns_per_s()), self._turns + elapsed * self._turns_per_s())
        self._lengths.passed(elapsed, len(self._running))
        if self._line and elapsed:
            self._charge(elapsed)
        if self._paused and self._set_aside():
            self._settle()

    def _charge(self, elapsed: float) -> None:
        """Charge tenants for what they used, in each line in which somebody waits."""
        contended = {session.ask.paced for session in self._line.values()}
        for (ask, steps), number in self._kinds.items():
            if ask.paced in contended:
                self._shares[ask.paced].charge(ask.tenant, elapsed * number * self._share(steps), self.config.tenant(ask.tenant).weight)
        self._close_accounts()

    def _close_accounts(self) -> None:
        for paced, shares in self._shares.items():
            if shares.accounts:
                shares.settle(self._waiting_tenants(paced=paced), lambda tenant: self.config.tenant(tenant).weight)

    def _waiting_tenants(self, *, paced: bool) -> set[str]:
        return {session.ask.tenant for session in self._line.values() if session.ask.paced == paced}

    def _set_aside(self) -> bool:
        """Take the slots of sessions that have paused for too long. Returns whether there were any."""
        config, now = self.config, self._now
        late = [key for key in self._paused if now - (self._running[key].paused_at or 0.0) >= config.hold_s - self._running[key].held_s]
        for key in late:
            self._put_aside(key, self._stop_running(key))
        return bool(late)

    def _put_aside(self, key: int, session: KnownSession) -> None:
        tenant, kept = session.ask.tenant, [other.ask.tenant for other in self._aside.values() if not other.ended]
        session.ended = len(kept) >= self.config.max_aside or kept.count(tenant) >= self.config.places_aside(tenant)
        session.paused_at, session.steps = None, 0
        self._aside[key] = session
        self._changes += [Change(each, 0, admitted=False, ended=session.ended) for each in session.keys]

    def _stand_still(self, key: int, session: KnownSession) -> None:
        """It pauses from now on, if none of its calls plays."""
        if session.still.issuperset(session.keys):
            if key in self._running and session.paused_at is None:
                session.held_s = max(0.0, session.held_s - (self._now - session.played_from))
                session.paused_at = self._now
                self._paused[key] = None
            elif key in self._line:  # it had been set aside before it was to be taken over
                self._put_aside(key, self._line.pop(key))

    def _stop_running(self, key: int) -> KnownSession:
        session = self._running.pop(key)
        self._behind.pop(key, None)
        self._paused.pop(key, None)
        self._count(session, -1)
        self._lengths.one_ended()
        return session

    def _go_on(self, key: int) -> Decision:
        if (session := self._running.get(key)) is not None:
            if session.paused_at is not None:
                session.held_s += self._now - session.paused_at
                session.paused_at, session.played_from = None, self._now
                del self._paused[key]
            return Admit(session.steps, self._brownout.level)
        if (session := self._aside.pop(key, None)) is not None:
            session.ask, session.held_s, session.played_from = replace(session.ask, resumed=True), 0.0, self._now
            self._line_up(key, session)
            decision = self._decide(key, 0.0, own=False)
            if isinstance(decision, Admit):
                self._admit(key, decision)
                return decision
        return Wait(1 + self._order(paced=self._line[key].ask.paced).index(key))

    def _known(self, name: str) -> KnownSession | None:
        return self._find(self._named[name]) if name in self._named else None

    def _find(self, key: int) -> KnownSession | None:
        return self._running.get(key) or self._line.get(key) or self._aside.get(key)

    def _take_part(self, key: int, session: KnownSession) -> Decision:
        first = self._first.get(session.keys[0], session.keys[0])
        session.keys.append(key)
        self._first[key] = first
        return self._go_on(first)

    def _gone(self, key: int, session: KnownSession) -> None:
        """Remove a session that no call holds any more."""
        if key in self._running:
            self._stop_running(key)
            self._departures += session.ask.paced
        else:
            self._line.pop(key, None)
            self._aside.pop(key, None)
        if self._named.get(session.name) == key:
            del self._named[session.name]

    def _line_up(self, key: int, session: KnownSession) -> None:
        paced, tenant = session.ask.paced, session.ask.tenant
        if self._line and tenant not in (waiting := self._waiting_tenants(paced=paced)) and waiting:
            self._shares[paced].join(tenant)
        self._line[key] = session

    def _decide(self, key: int, jitter: float, *, own: bool) -> Decision:
        """Decide about `key`, which is in line. `own`: this session is already counted among its tenant's, so do not count it twice."""
        ask = self._line[key].ask
        view = self._view(key, ask, self._order(paced=ask.paced).index(key))
        if own:
            view = replace(view, tenant_sessions=view.tenant_sessions - 1)
        return decide(ask, view, self.config, jitter)

    def _settle(self) -> None:
        """Admit from the line while there is room, then let the level follow the load."""
        for paced in (True, False):
            while order := self._order(paced=paced):
                ask = self._line[order[0]].ask
                decision = decide(ask, self._view(order[0], ask, 0), self.config, 0.0)
                if not isinstance(decision, Admit):
                    break
                session = self._line[order[0]]
                self._admit(order[0], decision)
                self._changes += [Change(key, decision.steps, admitted=True) for key in session.keys]
        running, waiting = self._paced(others=True), sum(s.ask.paced for s in self._line.values())
        self._move_to(self._brownout.observe(self.config.brownout, self._capacity, running, waiting, self._now))
        self._close_accounts()

    def _admit(self, key: int, decision: Admit) -> None:
        self._move_to(self._brownout.raised(decision.level, self._now))
        if len(self._line) > 1:
            self._shares[self._line[key].ask.paced].served(self._waiting_tenants(paced=self._line[key].ask.paced))
        session = self._line.pop(key)
        session.steps, session.played_from = decision.steps, self._now
        self._running[key] = session
        self._count(session, 1)

    def _count(self, session: KnownSession, change: int) -> None:
        kind = session.ask, session.steps
        if number := self._kinds[kind] + change:
            self._kinds[kind] = number
        else:
            del self._kinds[kind]

    def _move_to(self, brownout: BrownOut) -> None:
        """The level is another one at once, and those that run follow; see `_turn`."""
        if brownout.level != self._brownout.level:
            self._brownout = brownout
            self._behind = {key: None for key, session in self._running.items() if self._level_steps(session) != session.steps}
        self._turn()

    def _turn(self) -> None:
        """One by one, since each opens a new leg, which takes its replica time. But as many at once as it takes until all are in real time.

        So it is when replicas are lost: what those who run would miss while they wait for their turn is more than their legs cost.
        """
        while self._behind and (self._turns >= 1.0 or self._overloaded()):
            self._turns = max(0.0, self._turns - 1.0)
            key = next(iter(self._behind))
            del self._behind[key]
            session = self._running[key]
            self._count(session, -1)
            session.steps = self._level_steps(session)
            self._count(session, 1)
            self._changes += [Change(each, session.steps, admitted=False) for each in session.keys]

    def _overloaded(self) -> bool:
        """Whether those that run are late with the steps that they have now."""
        given = Counter({self.config.default_steps: self._capacity.others} if self._capacity.others else {})
        for (ask, steps), number in self._kinds.items():
            if ask.paced:
                given[steps] += number
        return self._capacity.load(given) > self.config.brownout.overload

    def _level_steps(self, session: KnownSession) -> int:
        return self.config.brownout.steps(session.ask.steps, self._brownout.level) if session.ask.lowers else session.steps

    def _turns_per_s(self) -> float:
        return self.config.brownout.turnover * len(self._running)

    def _view(self, key: int, ask: Ask, ahead: int) -> View:
        """As `key`, which is in line, sees it: without itself."""
        others = [s.ask for k, s in self._line.items() if k != key]
        if ask.resumed:
            peers = [o for o in others if o.resumed and o.paced == ask.paced]
        else:
            peers = [o for o in others if o.paced] if ask.paced else others
        here = sum(o.tenant == ask.tenant for o in others) + sum(s.ask.tenant == ask.tenant for s in self._aside.values())
        return View(
            capacity=self._capacity,
            level=self._brownout.level,
            running=self._paced(others=False),
            jobs=self._jobs(),
            ahead=ahead,
            waiting=len(peers),
            waiting_jobs=sum(not o.paced for o in peers),
            tenant_sessions=here + sum(n for (kind, _), n in self._kinds.items() if kind.tenant == ask.tenant),
            tenant_waiting=sum(o.tenant == ask.tenant and (o.paced, o.resumed) == (ask.paced, ask.resumed) for o in others),
            departures_per_s=(len(self._running) + self._capacity.others) / self._lengths.session_s,
        )

    def _jobs(self) -> int:
        return sum(n for (ask, _), n in self._kinds.items() if not ask.paced)

    def _paced(self, *, others: bool) -> Running:
        """Paced sessions that run, with those of other front doors or without."""
        asked, fixed = Counter[int](), Counter[int]()
        if others and self._capacity.others:
            asked[self.config.default_steps] = self._capacity.others
        for (ask, _), number in self._kinds.items():
            if ask.paced:
                (fixed if ask.fixed else asked)[ask.steps] += number
        return Running(asked, fixed)

    def _order(self, *, paced: bool) -> list[int]:
        here = [(key, session.ask) for key, session in self._line.items() if session.ask.paced == paced]
        order = [key for key, _ in here]
        if len(here) < 2:  # so it is where there is room for all
            return order
        tenants = {ask.tenant for _, ask in here}
        if len(tenants) > 1:  # within one, first come first served; a line may be long, and is looked at whenever anything changes
            outstanding: defaultdict[str, float] = defaultdict(float)
            for (ask, steps), number in self._kinds.items():
                outstanding[ask.tenant] += number * self._share(steps) * self._lengths.session_s
            line = [Waiter(key, ask.tenant, self._share(ask.steps) * self._lengths.session_s) for key, ask in here]
            weights = {tenant: self.config.tenant(tenant).weight for tenant in tenants}
            order = [waiter.key for waiter in self._shares[paced].order(line, outstanding, weights)]
        return sorted(order, key=lambda key: not self._line[key].ask.resumed)

    def _share(self, steps: int) -> float:
        """Accelerators that a session of `steps` steps occupies: accelerator-seconds a second."""
        return len(self._capacity.replicas) / self._capacity.sessions(steps)


def _alike(ask: Ask, other: Ask) -> bool:
    """Whether they ask for the same, `resumed` aside."""
    return replace(ask, resumed=other.resumed) == other
