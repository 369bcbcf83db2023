"""Sessions that pause, and sessions that are taken over: what they keep, and what others get."""

from dataclasses import replace

import pytest

from autoscaling.admission.brownout import BrownOutConfig
from autoscaling.admission.control import AdmissionControl, Change
from autoscaling.admission.decide import AdmissionConfig, Admit, Ask, Decision, Reject, Tenant, Wait
from autoscaling.capacity.profile import Capacity, DenoiseReplica

LIVE = Ask("default", 4, paced=True)
AGAIN = replace(LIVE, resumed=True)
HOLD_S = 30.0
CONFIG = AdmissionConfig(BrownOutConfig(()), max_waiting=4, max_wait_s=1e9, hold_s=HOLD_S, max_aside=2)


def control(slots: int, config: AdmissionConfig = CONFIG) -> AdmissionControl:
    return AdmissionControl(config, Capacity((DenoiseReplica(slots),), budget_s=0.3, ceiling=slots), now=0.0)


def passes(of: AdmissionControl, now: float, slots: int) -> None:
    """The stages are looked at, and can do what they could."""
    of.observe(Capacity((DenoiseReplica(slots),), budget_s=0.3, ceiling=slots), now)


def fill(of: AdmissionControl, count: int) -> None:
    for key in range(count):
        assert isinstance(of.arrive(key, LIVE, 0.0, 0.0), Admit)


def test_who_pauses_for_long_makes_room_for_others_and_comes_back_before_those_who_have_not_begun() -> None:
    desk = control(2)
    fill(desk, 2)
    desk.pause(0, 0.0)
    desk.pause(1, 1.0)
    assert desk.arrive(2, LIVE, HOLD_S - 0.1, 0.0) == Wait(1)
    assert desk.arrive(3, LIVE, HOLD_S - 0.1, 0.0) == Wait(2)
    passes(desk, HOLD_S, 2)
    assert desk.changes() == [Change(0, 0, admitted=False), Change(2, 4, admitted=True)]
    statistics = desk.statistics()
    assert (statistics.live, statistics.paused, statistics.aside, statistics.waiting) == (2, 1, 1, 1)
    assert desk.resume(0, HOLD_S + 0.5) == Wait(1)
    assert desk.positions() == {0: 1, 3: 2}
    desk.leave(2, HOLD_S + 0.6)
    assert desk.changes() == [Change(0, 4, admitted=True)]


def test_one_that_comes_back_to_a_free_slot_goes_on_at_once() -> None:
    desk = control(1)
    fill(desk, 1)
    desk.pause(0, 0.0)
    passes(desk, HOLD_S, 1)
    assert [change.steps for change in desk.changes()] == [0]
    assert desk.resume(0, 100.0) == Admit(4, 0)
    assert desk.changes() == []


def test_a_short_pause_keeps_its_slot_and_many_of_them_do_not() -> None:
    """What it has played makes up for as much of the pauses before."""
    desk = control(1)
    fill(desk, 1)
    desk.pause(0, 0.0)
    assert desk.resume(0, HOLD_S - 1) == Admit(4, 0)
    desk.pause(0, HOLD_S)  # after a second of play: two are left
    passes(desk, HOLD_S + 1.9, 1)
    assert desk.statistics().aside == 0
    passes(desk, HOLD_S + 2.0, 1)
    assert desk.statistics().aside == 1


def test_those_set_aside_are_bounded_and_the_next_one_is_ended() -> None:
    desk = control(3)
    fill(desk, 3)
    for key in range(3):
        desk.pause(key, float(key))
    passes(desk, 100.0, 3)
    assert [(change.key, change.ended) for change in desk.changes()] == [(0, False), (1, False), (2, True)]


def test_one_tenant_cannot_take_all_places_aside() -> None:
    desk = control(4, replace(CONFIG, tenants={"a": Tenant(1), "default": Tenant(1)}))
    for key, tenant in enumerate(["a", "a", "default"]):
        desk.arrive(key, Ask(tenant, 4, paced=True), 0.0, 0.0)
        desk.pause(key, float(key))
    passes(desk, 100.0, 4)
    assert [(change.key, change.ended) for change in desk.changes()] == [(0, False), (1, True), (2, False)]


def test_paused_sessions_count_against_their_tenants_quota() -> None:
    desk = control(4, replace(CONFIG, tenants={"default": Tenant(1, max_sessions=1)}))
    fill(desk, 1)
    desk.pause(0, 0.0)
    assert isinstance(desk.arrive(1, LIVE, 100.0, 0.0), Reject)
    assert desk.statistics().aside == 1


QUOTA = replace(CONFIG, tenants={"default": Tenant(1, max_sessions=1)})


def test_a_session_that_is_taken_over_is_the_same_session_and_not_a_second_one() -> None:
    """Its tenant may have one, and there is one slot."""
    desk = control(1, QUOTA)
    assert desk.arrive(0, LIVE, 0.0, 0.0, "s") == Admit(4, 0)
    assert desk.arrive(1, AGAIN, 1.0, 0.0, "s") == Admit(4, 0)
    assert desk.statistics().live == 1
    assert isinstance(desk.arrive(2, LIVE, 1.0, 0.0, "other"), Reject)
    desk.leave(0, 2.0)
    assert desk.statistics().live == 1
    assert isinstance(desk.arrive(3, LIVE, 2.0, 0.0, "other"), Reject)
    desk.leave(1, 3.0)
    assert desk.statistics().live == 0
    assert desk.arrive(4, LIVE, 3.0, 0.0, "s") == Admit(4, 0)


def test_a_takeover_that_fails_leaves_the_session_where_it_was() -> None:
    desk = control(1, QUOTA)
    desk.arrive(0, LIVE, 0.0, 0.0, "s")
    desk.arrive(1, AGAIN, 1.0, 0.0, "s")
    desk.leave(1, 1.1)
    assert desk.statistics().live == 1
    assert desk.arrive(2, AGAIN, 2.0, 0.0, "s") == Admit(4, 0)


@pytest.mark.parametrize(
    ("first", "second", "answer"),
    [
        (LIVE, Ask("default", 4, paced=False, resumed=True), Admit(4, 0)),  # as a job, it is another load, and still no second session
        (LIVE, Ask("other", 4, paced=True, resumed=True), Admit(4, 0)),  # for the other one's quota it is one more
    ],
)
def test_on_other_terms_it_takes_a_slot_of_its_own(first: Ask, second: Ask, answer: Decision) -> None:
    desk = control(2, QUOTA)
    desk.arrive(0, first, 0.0, 0.0, "s")
    assert desk.arrive(1, second, 1.0, 0.0, "s") == answer
    assert desk.statistics().live == 2


def test_both_calls_of_a_session_hear_what_becomes_of_it() -> None:
    desk = control(1)
    fill(desk, 1)
    assert desk.arrive(10, LIVE, 0.0, 0.0, "s") == Wait(1)
    assert desk.arrive(11, AGAIN, 0.0, 0.0, "s") == Wait(1)
    assert desk.positions() == {10: 1, 11: 1}
    desk.leave(0, 1.0)
    assert desk.changes() == [Change(10, 4, admitted=True), Change(11, 4, admitted=True)]


def test_one_that_is_taken_over_while_it_pauses_runs() -> None:
    desk = control(1)
    desk.arrive(0, LIVE, 0.0, 0.0, "s")
    desk.pause(0, 0.0)
    assert desk.arrive(1, AGAIN, 1.0, 0.0, "s") == Admit(4, 0)
    desk.leave(0, 1.5)
    passes(desk, 1000.0, 1)
    assert (desk.statistics().live, desk.statistics().aside) == (1, 0)


def test_a_takeover_that_fails_leaves_a_paused_session_paused() -> None:
    """Or whoever tries, and gives up, keeps the slot of a viewer who stands still, for ever."""
    desk = control(1)
    desk.arrive(0, LIVE, 0.0, 0.0, "s")
    desk.pause(0, 0.0)
    assert desk.arrive(1, AGAIN, 1.0, 0.0, "s") == Admit(4, 0)
    desk.leave(1, 1.1)
    assert (desk.statistics().live, desk.statistics().paused) == (1, 1)
    passes(desk, HOLD_S + 0.5, 1)
    assert desk.changes() == [Change(0, 0, admitted=False)]
    assert desk.resume(0, 100.0) == Admit(4, 0)


@pytest.mark.parametrize("free", [True, False])
def test_a_takeover_that_fails_leaves_one_that_was_set_aside_without_a_slot(free: bool) -> None:
    desk = control(1)
    desk.arrive(0, LIVE, 0.0, 0.0, "s")
    desk.pause(0, 0.0)
    passes(desk, HOLD_S, 1)
    assert desk.changes() == [Change(0, 0, admitted=False)]
    if not free:
        assert desk.arrive(1, LIVE, HOLD_S, 0.0) == Admit(4, 0)
    assert desk.arrive(2, AGAIN, HOLD_S, 0.0, "s") == (Admit(4, 0) if free else Wait(1))
    desk.leave(2, HOLD_S + 0.1)
    passes(desk, 3 * HOLD_S, 1)
    assert (desk.statistics().live, desk.statistics().waiting, desk.statistics().aside) == (0 if free else 1, 0, 1)
    if not free:
        desk.leave(1, 100.0)
    assert desk.resume(0, 100.0) == Admit(4, 0)


def test_a_takeover_that_pauses_itself_counts_once_the_last_call_has_left() -> None:
    desk = control(1)
    desk.arrive(0, LIVE, 0.0, 0.0, "s")
    desk.arrive(1, AGAIN, 1.0, 0.0, "s")
    desk.pause(1, 1.0)
    passes(desk, 1.0 + HOLD_S, 1)
    assert desk.statistics().aside == 0  # the other call plays
    desk.leave(0, 2.0 + HOLD_S)
    assert desk.statistics().paused == 1
    passes(desk, 100.0, 1)
    assert desk.statistics().aside == 1
