"""Shares between tenants: what each gets over any window, whatever it did before."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaling.admission.brownout import BrownOutConfig
from autoscaling.admission.control import AdmissionControl
from autoscaling.admission.decide import AdmissionConfig, Admit, Ask, Reject, Tenant
from autoscaling.admission.fairness import DEBT_S, FairShares, Waiter
from autoscaling.capacity.profile import Capacity, DenoiseReplica

LAST_S = 5
SLOTS = 4
PLAIN = AdmissionConfig(BrownOutConfig(()), max_waiting=4000, max_wait_s=1e9)


class Town:
    """Tenants that keep so many in line, on `SLOTS` slots; each session lasts `LAST_S` seconds. Time moves in seconds."""

    def __init__(self, weights: dict[str, float], lasts_s: Callable[[str], int] = lambda _: LAST_S) -> None:
        config = replace(PLAIN, tenants={name: Tenant(weight) for name, weight in weights.items()})
        capacity = Capacity((DenoiseReplica(SLOTS),), budget_s=0.3, ceiling=SLOTS)
        self.control = AdmissionControl(config, capacity, now=0.0)
        self.lasts_s = lasts_s
        self.now = 0
        self.asks: dict[int, Ask] = {}
        self.ends: dict[int, int] = {}
        self.admitted: list[str] = []

    def begin(self, key: int) -> None:
        tenant = self.asks[key].tenant
        self.ends[key] = self.now + self.lasts_s(tenant)
        self.admitted.append(tenant)

    def take(self) -> None:
        for change in self.control.changes():
            self.begin(change.key)

    def arrive(self, tenant: str, *, paced: bool = True) -> None:
        key = len(self.asks)
        self.asks[key] = Ask(tenant, 4, paced)
        decision = self.control.arrive(key, self.asks[key], float(self.now), 0.0)
        self.take()
        if isinstance(decision, Admit):
            self.begin(key)

    def pass_seconds(self, seconds: int, waiting: dict[str, int], running: dict[str, int] | None = None) -> None:
        """`waiting`: how many each tenant keeps in line; `running`: tenants that ask only while fewer of theirs run, and nobody waits."""
        for _ in range(seconds):
            self.now += 1
            for key in [key for key, end in self.ends.items() if end <= self.now]:
                del self.ends[key]
                self.control.leave(key, float(self.now))
                self.take()
            held = Counter(self.asks[key].tenant for key in self.ends)
            for name, most in (running or {}).items():
                if held[name] < most and len(self.ends) < SLOTS:
                    self.arrive(name)
            in_line = Counter(self.asks[key].tenant for key in self.control.positions())
            for name, most in waiting.items():
                for _ in range(most - in_line[name]):
                    self.arrive(name)


def test_one_that_was_idle_does_not_get_all_that_follows() -> None:
    """While a floods, b has one session that goes on and c has none; then all three flood."""
    lasts_s = {"a": LAST_S, "b": 1000, "c": LAST_S}
    town = Town({"a": 1, "b": 1, "c": 1}, lasts_s=lasts_s.__getitem__)
    town.arrive("b")
    town.pass_seconds(400, waiting={"a": SLOTS})
    lasts_s["b"] = LAST_S
    before = len(town.admitted)
    town.pass_seconds(60, waiting=dict.fromkeys("abc", SLOTS))
    got = Counter(town.admitted[before:][:30])
    assert min(got["a"], got["c"]) >= 10
    assert got["b"] > 0  # it has a slot all the time besides


def test_one_that_comes_first_after_a_quiet_time_is_owed_nothing() -> None:
    town = Town({"a": 1, "b": 1})
    town.pass_seconds(400, waiting={"a": 3})
    town.pass_seconds(20, waiting={})
    before = len(town.admitted)
    town.pass_seconds(100, waiting={"b": 3, "a": 3})
    assert min(Counter(town.admitted[before:][:40]).values()) >= 16


def test_one_that_has_used_much_is_not_locked_out_for_as_long() -> None:
    """B's sessions last a hundred times as long as they are expected to; c waits all the time."""
    town = Town({"b": 1, "c": 1}, lasts_s=lambda name: 500 if name == "b" else LAST_S)
    town.pass_seconds(1000, waiting={"b": 1, "c": 1})
    before = town.admitted.count("b")
    # b holds all its life long what it was given; it gets more as soon as its arrears, of at most DEBT_S, are made up for.
    town.pass_seconds(500 + int(DEBT_S) * LAST_S, waiting={"b": 1, "c": 1})
    assert town.admitted.count("b") > before


def test_leaving_and_coming_back_gains_nothing() -> None:
    """B asks and gives up each second; a and c wait their turn."""
    town = Town({"a": 1, "b": 1, "c": 1})
    town.pass_seconds(50, waiting={"a": 2, "b": 2, "c": 2})
    before = len(town.admitted)
    for _ in range(150):
        for key in town.control.positions():
            if town.asks[key].tenant == "b":
                town.control.leave(key, float(town.now))
        town.take()
        town.pass_seconds(1, waiting={"a": 2, "b": 2, "c": 2})
    got = Counter(town.admitted[before:])
    assert got["b"] <= 1.1 * min(got["a"], got["c"])


def test_many_small_tenants_leave_a_large_one_its_share() -> None:
    small = [f"t{n}" for n in range(20)]
    town = Town({"big": 20.0} | dict.fromkeys(small, 1.0))
    town.pass_seconds(500, waiting={"big": SLOTS} | dict.fromkeys(small, 1))
    got = Counter(town.admitted[100:])
    assert got["big"] == pytest.approx(sum(got.values()) / 2, rel=0.15)


@settings(max_examples=12, deadline=None)
@given(
    weights=st.tuples(*[st.sampled_from([0.5, 1.0, 2.0, 4.0])] * 3),
    story=st.lists(st.tuples(st.integers(1, 40), st.booleans(), st.booleans()), max_size=4),
)
def test_who_waits_gets_its_share_of_any_window_but_for_a_bound(
    weights: tuple[float, float, float], story: list[tuple[int, bool, bool]]
) -> None:
    """A waits always; b and c come and go as the story has it, then both stay."""
    names = dict(zip("abc", weights, strict=True))
    town = Town(names)
    for seconds, b, c in story:
        town.pass_seconds(seconds, waiting={"a": SLOTS, "b": SLOTS * b, "c": SLOTS * c})
    before = len(town.admitted)
    town.pass_seconds(80, waiting=dict.fromkeys("abc", SLOTS))
    window = town.admitted[before:]
    for name, weight in names.items():
        due = len(window) * weight / sum(weights)
        assert window.count(name) >= due - 2 * SLOTS - 2, (name, Counter(window))


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0, 100), st.booleans()), max_size=60))
def test_no_account_is_further_from_the_least_than_the_bound(story: Sequence[tuple[str, float, bool]]) -> None:
    weights = {"a": 1.0, "b": 3.0, "c": 0.5, "d": 10.0}
    shares, waiting = FairShares(), {"a"}
    for name, seconds, comes in story:
        if comes and name not in waiting:
            shares.join(name)
            waiting.add(name)
        elif not comes and name != "a":
            waiting.discard(name)
        shares.charge(name, seconds, weights[name])
        shares.settle(waiting, weights.__getitem__)
        line = [Waiter(n, who, 0.0) for n, who in enumerate(sorted(waiting))]
        last = shares.order(line, {}, weights)[-1].tenant
        # A little of nothing outstanding tells how far the others may be before it is overtaken.
        ahead = {other: (DEBT_S / weights[last] + 1e-6) * weights[other] for other in waiting if other != last}
        assert shares.order(line, ahead, weights)[0].tenant == last
    assert shares.accounts <= len(weights)


def test_accounts_are_closed_when_nobody_waits_and_names_are_not_kept() -> None:
    shares = FairShares()
    for number in range(1000):
        shares.join(f"t{number}")
        shares.settle({"a"}, lambda _: 1.0)
    assert shares.accounts <= 1
    shares.charge("a", 5.0, 1.0)
    shares.settle((), lambda _: 1.0)
    assert shares.accounts == 0


def test_jobs_cannot_fill_the_line_and_viewers_can_take_their_places() -> None:
    config = replace(PLAIN, max_waiting=4)
    control = AdmissionControl(config, Capacity((DenoiseReplica(1),), budget_s=0.3, ceiling=1), now=0.0)
    viewer, job = Ask("default", 4, paced=True), Ask("default", 4, paced=False)
    control.arrive(0, viewer, 0.0, 0.0)
    jobs = [control.arrive(key, job, 0.0, 0.0) for key in range(1, 7)]
    assert [type(answer) is Reject for answer in jobs] == [False, False, True, True, True, True]
    refused = jobs[-1]
    assert isinstance(refused, Reject)
    assert "2 of at most 2 jobs wait" in refused.reason
    viewers = [control.arrive(key, viewer, 0.0, 0.0) for key in range(10, 16)]
    assert [type(answer) is Reject for answer in viewers] == [False] * 4 + [True] * 2
    control.leave(1, 1.0)
    assert isinstance(control.arrive(20, job, 1.0, 0.0), Reject)  # all places are taken, though not all by jobs


def test_those_who_come_back_have_places_by_tenant_too() -> None:
    config = replace(PLAIN, max_waiting=4, tenants={"a": Tenant(), "b": Tenant(), "default": Tenant(2)})
    control = AdmissionControl(config, Capacity((DenoiseReplica(1),), budget_s=0.3, ceiling=1), now=0.0)
    control.arrive(0, Ask("a", 4, paced=True), 0.0, 0.0)
    again = [control.arrive(key, Ask("a", 4, paced=True, resumed=True), 0.0, 0.0) for key in range(1, 4)]
    assert [type(answer) is Reject for answer in again] == [False, True, True]
    assert not isinstance(control.arrive(9, Ask("b", 4, paced=True, resumed=True), 0.0, 0.0), Reject)
