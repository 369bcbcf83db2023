"""The books of admission over long random histories: nothing is lost, nobody waits beside room, and every bound holds."""

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from autoscaling.admission.brownout import Running
from autoscaling.admission.control import AdmissionControl
from autoscaling.admission.decide import Admit, Ask, Reject, Tenant, Wait
from tests.unit.autoscaling.test_admission_policy import CONFIG, capacity


class Books(RuleBasedStateMachine):
    """Arrivals, departures and changing capacity against simple sums."""

    @initialize(slots=st.integers(1, 20))
    def begin(self, slots: int) -> None:
        self.now, self.key = 0.0, 0
        self.config = replace(CONFIG, tenants={"a": Tenant(2), "b": Tenant(1, max_sessions=3)}, hold_s=15.0, max_aside=3)
        self.capacity = capacity(24, ceiling=slots)
        self.control = AdmissionControl(self.config, self.capacity, 0.0)
        self.asks: dict[int, Ask] = {}
        self.running: dict[int, int] = {}
        self.waiting: set[int] = set()
        self.paused: set[int] = set()
        self.aside: set[int] = set()
        self.arrived = self.refused = self.left = 0

    def take(self) -> None:
        for change in self.control.changes():
            if change.steps == 0:
                assert change.key in self.paused
                self.paused.discard(change.key)
                del self.running[change.key]
                self.aside.add(change.key)
                if change.ended:
                    self.control.leave(change.key, self.now)
                    self.forget(change.key)
                continue
            if change.admitted:
                self.waiting.remove(change.key)
            else:
                assert change.key in self.running
                assert self.running[change.key] != change.steps
            self.running[change.key] = change.steps

    @rule(
        tenant=st.sampled_from(["a", "b", "default", "other"]), steps=st.integers(1, 16), paced=st.booleans(), resumed=st.booleans(),
        fixed=st.booleans(), wait=st.floats(0, 20),
    )  # fmt: skip
    def arrive(self, tenant: str, steps: int, paced: bool, resumed: bool, fixed: bool, wait: float) -> None:
        self.now += wait
        self.key += 1
        self.arrived += 1
        before = dict(self.running)
        ask = Ask(tenant, steps, paced, resumed, fixed=fixed)
        decision = self.control.arrive(self.key, ask, self.now, 0.3)
        match decision:
            case Admit(steps=got):
                self.running[self.key] = got
            case Wait():
                self.waiting.add(self.key)
            case Reject(retry_after_s=seconds):
                assert 0.5 <= seconds <= 120
                self.refused += 1
        if not isinstance(decision, Reject):
            self.asks[self.key] = ask
        self.take()
        assert all(key in self.running or key in self.aside or key not in self.asks for key in before)

    @precondition(lambda self: self.asks)
    @rule(data=st.data(), wait=st.floats(0, 20))
    def leave(self, data: st.DataObject, wait: float) -> None:
        self.now += wait
        key = data.draw(st.sampled_from(sorted(self.asks)))
        self.control.leave(key, self.now)
        self.forget(key)
        self.take()

    def forget(self, key: int) -> None:
        self.running.pop(key, None)
        for kept in (self.waiting, self.paused, self.aside):
            kept.discard(key)
        del self.asks[key]
        self.left += 1

    @precondition(lambda self: self.running)
    @rule(data=st.data(), wait=st.floats(0, 20))
    def pause(self, data: st.DataObject, wait: float) -> None:
        self.now += wait
        key = data.draw(st.sampled_from(sorted(self.running)))
        self.control.pause(key, self.now)
        self.paused.add(key)
        self.take()

    @precondition(lambda self: self.paused or self.aside)
    @rule(data=st.data(), wait=st.floats(0, 20))
    def resume(self, data: st.DataObject, wait: float) -> None:
        self.now += wait
        key = data.draw(st.sampled_from(sorted(self.paused | self.aside)))
        decision = self.control.resume(key, self.now)
        self.paused.discard(key)
        self.aside.discard(key)
        self.running.pop(key, None)
        self.asks[key] = replace(self.asks[key], resumed=not isinstance(decision, Admit) or self.asks[key].resumed)
        match decision:
            case Admit(steps=steps):
                self.running[key] = steps
            case Wait():
                self.waiting.add(key)
            case Reject():
                raise AssertionError("one that was set aside is never refused")
        self.take()

    @rule(at_one_step=st.floats(1, 80), wait=st.floats(0, 20))
    def measure(self, at_one_step: float, wait: float) -> None:
        self.now += wait
        self.capacity = capacity(at_one_step, ceiling=self.capacity.ceiling)
        self.control.observe(self.capacity, self.now)
        self.take()

    @invariant()
    def nothing_is_lost(self) -> None:
        if not hasattr(self, "control"):
            return
        statistics = self.control.statistics()
        assert (statistics.live, statistics.waiting) == (len(self.running), len(self.waiting))
        assert (statistics.paused, statistics.aside) == (len(self.paused), len(self.aside))
        assert len(self.aside) <= self.config.max_aside
        assert self.arrived == self.refused + self.left + len(self.running) + len(self.waiting) + len(self.aside)
        assert len(self.running) <= self.capacity.slots
        assert sum(ask.tenant == "b" for ask in self.asks.values()) <= 3
        new = [ask for key, ask in self.asks.items() if key in self.waiting and not ask.resumed]
        assert len(new) <= self.config.max_waiting + self.config.job_places
        assert sum(not ask.paced for ask in new) <= self.config.job_places
        places = self.control.positions()
        assert places.keys() == self.waiting
        for paced in (True, False):
            of_kind = sorted(place for key, place in places.items() if self.asks[key].paced == paced)
            assert of_kind == list(range(1, len(of_kind) + 1))
            watched = sorted(place for key, place in places.items() if self.asks[key].paced == paced and self.asks[key].resumed)
            assert watched == list(range(1, len(watched) + 1))

    @rule()
    def time_passes(self) -> None:
        """Long enough for all to follow the level, which may move once more meanwhile."""
        for _ in range(2 * len(self.running) + 2):
            self.now += 1 / self.config.brownout.turnover
            self.control.observe(self.capacity, self.now)
            self.take()
        brownout, level = self.config.brownout, self.control.statistics().level
        for key, steps in self.running.items():
            ask = self.asks[key]
            if ask.paced:
                assert steps == (ask.steps if ask.fixed else brownout.steps(ask.steps, level))

    @invariant()
    def no_room_is_left_idle(self) -> None:
        """The first in line does not fit, even at the lowest quality."""
        if not hasattr(self, "control"):
            return
        running = Running()
        for ask in (self.asks[key] for key in self.running):
            running = running.joined(ask.steps, fixed=ask.fixed) if ask.paced else running
        for key, place in self.control.positions().items():
            if place == 1 and self.asks[key].paced and len(self.running) < self.capacity.slots:
                brownout = self.config.brownout
                with_it = running.joined(self.asks[key].steps, fixed=self.asks[key].fixed)
                assert not brownout.fits(self.capacity, with_it, brownout.lowest)


Books.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestBooks = Books.TestCase
