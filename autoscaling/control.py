"""Admission over time: who is in line and who runs, moved on by events. `admission` and `brownout` decide; this keeps the books.

    arrive   → Admit, Wait or Reject
    leave    in line or running
    observe  a new capacity

Every call is told the time, and is followed by `changes()`: who was admitted or given another number of steps by it. The front door and a
simulator drive the same object.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass

from autoscaling.admission import AdmissionConfig, Admit, Ask, Decision, Reject, View, Wait, decide
from autoscaling.brownout import BrownOut
from autoscaling.fairness import FairShares, Waiter
from autoscaling.profile import Capacity

# Until sessions have been seen to end: how long one is taken to last.
_PRIOR_SESSION_S = 30.0
# What has been seen of lengths halves in weight in this time.
_MEMORY_S = 600.0


@dataclass(slots=True)
class _Session:
    ask: Ask
    steps: int  # 0 while in line


@dataclass(frozen=True, slots=True)
class Change:
    """Session `key` runs with `steps` from now on. `admitted`: it waited until now."""

    key: int
    steps: int
    admitted: bool


@dataclass(frozen=True, slots=True)
class ControlStatistics:
    """Sessions now, and ever.

    Attributes:
        live, degraded, waiting: that run, how many of those below what they asked for, and in line.
        level: of brown-out.
        capacity: sessions that fit at level 0.
        live_jobs, waiting_jobs: how many of those have no playback to keep up with.
        arrivals, departures: of paced sessions: those that asked, the refused ones too; and those that ran and ended.
    """

    live: int
    degraded: int
    waiting: int
    level: int
    capacity: int
    live_jobs: int
    waiting_jobs: int
    arrivals: int
    departures: int


class AdmissionControl:
    """See the module's docstring. One owner."""

    def __init__(self, config: AdmissionConfig, capacity: Capacity, now: float) -> None:
        self._config = config
        self._capacity = capacity
        self._now = now
        self._brownout = BrownOut()
        self._shares = FairShares()
        self._running: dict[int, _Session] = {}
        self._kinds: Counter[tuple[Ask, int]] = Counter()  # of those that run, by what they asked for and the steps that they have
        self._line: dict[int, _Session] = {}  # in order of arrival
        self._changes: list[Change] = []
        self._behind: dict[int, None] = {}  # of those that run, who does not have the level's steps yet, in order
        self._turns = 1.0  # of those, how many may change now
        self._ended = 1.0
        self._exposure_s = _PRIOR_SESSION_S
        self._arrivals = self._departures = 0

    def arrive(self, key: int, ask: Ask, now: float, jitter: float) -> Decision:
        """`key` is new. A Reject leaves nothing behind."""
        self._advance(now)
        self._arrivals += ask.paced
        present = self._present()
        if ask.tenant not in present:
            self._shares.join(ask.tenant, present)
        self._line[key] = _Session(ask, 0)
        ahead = self._order(paced=ask.paced).index(key)
        decision = decide(ask, self._view(key, ask, ahead), self._config, jitter)
        match decision:
            case Reject():
                del self._line[key]
            case Admit():
                self._admit(key, decision)
            case Wait():
                pass
        return decision

    def leave(self, key: int, now: float) -> None:
        """It ended, or gave up in line."""
        self._advance(now)
        if self._line.pop(key, None) is None:
            session = self._running.pop(key)
            self._behind.pop(key, None)
            self._count(session, -1)
            self._departures += session.ask.paced
            self._ended += 1
        self._settle()

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
        return {key: place for paced in (True, False) for place, key in enumerate(self._order(paced=paced), start=1)}

    def statistics(self) -> ControlStatistics:
        full = self._capacity.sessions(self._config.default_steps)
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
        )

    def _advance(self, now: float) -> None:
        elapsed = max(0.0, now - self._now)
        self._now = max(self._now, now)
        self._turns = min(max(1.0, self._turns_per_s()), self._turns + elapsed * self._turns_per_s())
        decay = math.exp(-elapsed / _MEMORY_S)
        # The prior stays: without it one early end would count for everything.
        self._ended = 1 + (self._ended - 1) * decay
        self._exposure_s = _PRIOR_SESSION_S + (self._exposure_s - _PRIOR_SESSION_S) * decay + elapsed * len(self._running)
        for (ask, steps), number in self._kinds.items():
            self._shares.charge(ask.tenant, elapsed * number * self._share(steps), self._config.tenant(ask.tenant).weight)

    def _settle(self) -> None:
        """Admit from the line while there is room, then let the level follow the load."""
        for paced in (True, False):
            while order := self._order(paced=paced):
                ask = self._line[order[0]].ask
                decision = decide(ask, self._view(order[0], ask, 0), self._config, 0.0)
                if not isinstance(decision, Admit):
                    break
                self._admit(order[0], decision)
                self._changes.append(Change(order[0], decision.steps, admitted=True))
        waiting = sum(s.ask.paced for s in self._line.values())
        self._move_to(self._brownout.observe(self._config.brownout, self._capacity, self._paced(others=True), waiting, self._now))

    def _admit(self, key: int, decision: Admit) -> None:
        self._move_to(self._brownout.raised(decision.level, self._now))
        session = self._line.pop(key)
        session.steps = decision.steps
        self._running[key] = session
        self._count(session, 1)

    def _count(self, session: _Session, change: int) -> None:
        kind = session.ask, session.steps
        if number := self._kinds[kind] + change:
            self._kinds[kind] = number
        else:
            del self._kinds[kind]

    def _move_to(self, brownout: BrownOut) -> None:
        """The level is another one at once; those that run follow one by one, since each opens a new leg, which takes its replica time."""
        if brownout.level != self._brownout.level:
            self._brownout = brownout
            self._behind = {key: None for key, session in self._running.items() if self._level_steps(session) != session.steps}
        self._turn()

    def _turn(self) -> None:
        while self._behind and self._turns >= 1.0:
            self._turns -= 1.0
            key = next(iter(self._behind))
            del self._behind[key]
            session = self._running[key]
            self._count(session, -1)
            session.steps = self._level_steps(session)
            self._count(session, 1)
            self._changes.append(Change(key, session.steps, admitted=False))

    def _level_steps(self, session: _Session) -> int:
        return self._config.brownout.steps(session.ask.steps, self._brownout.level) if session.ask.paced else session.steps

    def _turns_per_s(self) -> float:
        return self._config.brownout.turnover * len(self._running)

    def _view(self, key: int, ask: Ask, ahead: int) -> View:
        """As `key`, which is in line, sees it: without itself."""
        others = [s.ask for k, s in self._line.items() if k != key]
        in_line = sum(o.tenant == ask.tenant for o in others)
        return View(
            capacity=self._capacity,
            level=self._brownout.level,
            running=self._paced(others=False),
            jobs=self._jobs(),
            ahead=ahead,
            waiting=len(others),
            tenant_sessions=in_line + sum(n for (kind, _), n in self._kinds.items() if kind.tenant == ask.tenant),
            tenant_waiting=in_line,
            departures_per_s=(len(self._running) + self._capacity.others) / self._session_s(),
        )

    def _jobs(self) -> int:
        return sum(n for (ask, _), n in self._kinds.items() if not ask.paced)

    def _paced(self, *, others: bool) -> dict[int, int]:
        """Paced sessions that run, by the steps that they asked for, with those of other front doors or without."""
        asked = {self._config.default_steps: self._capacity.others} if others and self._capacity.others else {}
        for (ask, _), number in self._kinds.items():
            if ask.paced:
                asked[ask.steps] = asked.get(ask.steps, 0) + number
        return asked

    def _order(self, *, paced: bool) -> list[int]:
        here = [(key, session.ask) for key, session in self._line.items() if session.ask.paced == paced]
        order = [key for key, _ in here]
        if len(here) < 2:  # so it is where there is room for all
            return order
        tenants = {ask.tenant for _, ask in here}
        if len(tenants) > 1:  # within one, first come first served; a line may be long, and is looked at whenever anything changes
            outstanding: defaultdict[str, float] = defaultdict(float)
            for (ask, steps), number in self._kinds.items():
                outstanding[ask.tenant] += number * self._share(steps) * self._session_s()
            line = [Waiter(key, ask.tenant, self._share(ask.steps) * self._session_s()) for key, ask in here]
            weights = {tenant: self._config.tenant(tenant).weight for tenant in tenants}
            order = [waiter.key for waiter in self._shares.order(line, outstanding, weights)]
        return sorted(order, key=lambda key: not self._line[key].ask.resumed)

    def _present(self) -> set[str]:
        return {ask.tenant for ask, _ in self._kinds} | {s.ask.tenant for s in self._line.values()}

    def _share(self, steps: int) -> float:
        """Accelerators that a session of `steps` steps occupies: accelerator-seconds a second."""
        return len(self._capacity.replicas) / self._capacity.sessions(steps)

    def _session_s(self) -> float:
        """How long a session is expected to last, and, lengths taken as exponential, to go on lasting."""
        return self._exposure_s / self._ended
