"""The pure policy: single decisions, and the books over long random histories."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaling.admission.brownout import BrownOutConfig, Running
from autoscaling.admission.control import AdmissionControl, Change
from autoscaling.admission.decide import AdmissionConfig, Admit, Ask, Reject, Tenant, View, Wait, decide
from autoscaling.capacity.profile import Capacity, CapacityProfile, DenoiseReplica

LIVE = Ask("default", steps=4, paced=True)
JOB = Ask("default", steps=4, paced=False)


def capacity(at_one_step: float = 24, ceiling: int = 64, others: int = 0) -> Capacity:
    """At correction 1, sessions of 4, 3, 2 steps: 6, 8, 12."""
    buckets = tuple(range(1, 65))
    profile = CapacityProfile(buckets, tuple(0.01 * b for b in buckets), tuple(1e-9 * b for b in buckets))
    return Capacity((DenoiseReplica(64, profile),), budget_s=0.01 * at_one_step + 1e-4, ceiling=ceiling, others=others)


CONFIG = AdmissionConfig(BrownOutConfig((3, 2), dwell_s=10), max_waiting=4, max_wait_s=10)
AT_ONCE = replace(CONFIG, brownout=replace(CONFIG.brownout, turnover=1e12))
FULL = View(capacity(), level=2, running=Running({4: 12}), departures_per_s=0.5)


@pytest.mark.parametrize(
    ("running", "level", "admitted"),
    [(0, 0, Admit(4, 0)), (5, 0, Admit(4, 0)), (6, 0, Admit(3, 1)), (8, 0, Admit(2, 2)), (8, 1, Admit(2, 2)), (3, 1, Admit(3, 1))],
)
def test_quality_gives_way_before_anyone_waits(running: int, level: int, admitted: Admit) -> None:
    assert decide(LIVE, View(capacity(), level=level, running=Running({4: running})), CONFIG, 0.0) == admitted


def test_when_quality_has_given_all_one_waits_as_long_as_the_bound_allows() -> None:
    assert decide(LIVE, FULL, CONFIG, 0.0) == Wait(1)
    assert decide(LIVE, replace(FULL, ahead=3, waiting=3), replace(CONFIG, max_waiting=9), 0.0) == Wait(4)
    refused = decide(LIVE, replace(FULL, ahead=5, waiting=5), replace(CONFIG, max_waiting=9), 0.0)
    assert isinstance(refused, Reject)
    assert "a slot is expected later than the 10 s that one may wait" in refused.reason


def test_who_is_refused_is_told_when_a_slot_comes_and_not_all_the_same() -> None:
    full = replace(FULL, waiting=4, ahead=4)
    first, second = decide(LIVE, full, CONFIG, 0.0), decide(LIVE, full, CONFIG, 0.5)
    assert isinstance(first, Reject)
    assert isinstance(second, Reject)
    assert (first.retry_after_s, second.retry_after_s) == (2.0, 3.0)
    assert "4 of at most 4 sessions wait" in first.reason
    never = decide(LIVE, replace(full, departures_per_s=0.0), CONFIG, 0.0)
    assert isinstance(never, Reject)
    assert never.retry_after_s == 60.0


def test_nobody_overtakes_the_line() -> None:
    assert decide(LIVE, View(capacity(), ahead=1, waiting=1, departures_per_s=1.0), CONFIG, 0.0) == Wait(2)


def test_who_is_watched_already_stands_before_those_who_have_not_begun_and_is_not_refused_for_having_to_wait() -> None:
    control = AdmissionControl(CONFIG, capacity(), now=0.0)
    for key in range(12):
        control.arrive(key, LIVE, 1.0, 0.0)
    assert [control.arrive(key, LIVE, 1.0, 0.0) for key in (12, 13)] == [Wait(1), Wait(2)]
    resumed = replace(LIVE, resumed=True)
    assert [control.arrive(key, resumed, 1.0, 0.0) for key in (14, 15, 16, 17)] == [Wait(1), Wait(2), Wait(3), Wait(4)]
    assert isinstance(control.arrive(18, LIVE, 1.0, 0.0), Reject)
    refused = control.arrive(19, resumed, 1.0, 0.0)
    assert isinstance(refused, Reject)  # even this line has an end
    assert "4 of at most 4 sessions wait" in refused.reason
    assert control.positions() == {14: 1, 15: 2, 16: 3, 17: 4, 12: 5, 13: 6}
    control.leave(3, 2.0)
    assert [change.key for change in control.changes() if change.admitted] == [14]
    assert decide(resumed, replace(FULL, departures_per_s=0.0), CONFIG, 0.0) == Wait(1)


def test_jobs_take_what_real_time_leaves_and_wait_without_a_bound() -> None:
    roomy = View(capacity(ceiling=16), running=Running({4: 6}))
    assert decide(JOB, replace(roomy, jobs=3), CONFIG, 0.0) == Admit(4, 0)  # 12 of 16 slots are kept for paced sessions
    assert decide(JOB, replace(roomy, jobs=4), CONFIG, 0.0) == Wait(1)
    assert decide(JOB, replace(FULL, capacity=capacity(ceiling=16), level=2, jobs=0), CONFIG, 0.0) == Admit(4, 2)
    assert isinstance(decide(JOB, replace(roomy, jobs=4, waiting=4), CONFIG, 0.0), Reject)


def test_sessions_of_other_front_doors_count() -> None:
    assert decide(LIVE, View(capacity(others=6)), CONFIG, 0.0) == Admit(3, 1)
    assert isinstance(decide(LIVE, View(capacity(others=12), departures_per_s=1.0), CONFIG, 0.0), Wait)


def test_a_tenant_has_its_own_limits() -> None:
    config = replace(CONFIG, tenants={"small": Tenant(1, max_sessions=2), "big": Tenant(2)}, max_waiting=8)
    small = replace(LIVE, tenant="small")
    refused = decide(small, View(capacity(), tenant_sessions=2), config, 0.0)
    assert isinstance(refused, Reject)
    assert "tenant small has 2 of at most 2 sessions" in refused.reason
    assert [config.places(name) for name in ("small", "big", "default", "other")] == [2, 4, 2, 2]
    crowded = decide(small, replace(FULL, tenant_waiting=2, waiting=2), config, 0.0)
    assert isinstance(crowded, Reject)
    assert "2 of at most 2 sessions of tenant small wait" in crowded.reason


def test_callers_cannot_make_tenants_up() -> None:
    config = replace(CONFIG, tenants={"a": Tenant(2)})
    assert [config.tenant_name(n) for n in ("", "default", "a", "b", "c")] == ["default", "default", "a", "other", "other"]


some_sessions = st.lists(st.integers(1, 16), max_size=10).map(Counter)
views = st.builds(
    View,
    capacity=st.builds(capacity, st.floats(1, 80), st.integers(1, 64), st.integers(0, 5)),
    level=st.integers(0, 2),
    running=st.builds(Running, some_sessions, some_sessions),
    jobs=st.integers(0, 5),
    ahead=st.integers(0, 5),
    waiting=st.integers(0, 5),
    departures_per_s=st.floats(0, 5),
)
asks = st.builds(Ask, st.just("default"), st.integers(1, 16), st.booleans(), st.booleans(), fixed=st.booleans())


@given(asks, views)
def test_never_over_capacity(ask: Ask, view: View) -> None:
    decision = decide(ask, view, CONFIG, 0.0)
    if isinstance(decision, Admit):
        assert view.running.total() + view.jobs + view.capacity.others < view.capacity.slots
        if ask.paced:
            assert decision.steps == ask.steps if ask.fixed else decision.steps <= ask.steps
            given = Counter(view.running.fixed) + Counter([decision.steps])
            for steps, number in (*view.running.asked.items(), (CONFIG.default_steps, view.capacity.others)):
                given[CONFIG.brownout.steps(steps, decision.level)] += number
            assert view.capacity.load(given) <= 1 + 1e-6


@given(asks, views, st.floats(1, 4), st.integers(0, 20))
def test_more_capacity_never_turns_an_admission_into_less(ask: Ask, view: View, factor: float, slots: int) -> None:
    """For a job, more real-time capacity means more slots kept free for it; only more slots are sure to help."""
    before = decide(ask, view, CONFIG, 0.0)
    budget_s = view.capacity.budget_s * (factor if ask.paced else 1)
    more = replace(view.capacity, budget_s=budget_s, ceiling=view.capacity.ceiling + (slots if ask.paced else 0), _known={})
    after = decide(ask, replace(view, capacity=more), CONFIG, 0.0)
    rank = {Admit: 2, Wait: 1, Reject: 0}
    assert rank[type(after)] >= rank[type(before)]
    if isinstance(before, Admit) and isinstance(after, Admit):
        assert after.steps >= before.steps


def test_the_story_of_a_busy_minute() -> None:
    control = AdmissionControl(AT_ONCE, capacity(), now=0.0)
    decisions = [control.arrive(key, LIVE, 0.9 + 1e-6 * key, 0.0) for key in range(13)]
    assert decisions == [Admit(4, 0)] * 6 + [Admit(3, 1)] * 2 + [Admit(2, 2)] * 4 + [Wait(1)]
    changes = control.changes()
    assert [c for c in changes if c.steps == 3] == [Change(key, 3, admitted=False) for key in range(6)]
    assert {c.key for c in changes if c.steps == 2} == set(range(8))
    assert control.positions() == {12: 1}
    assert control.statistics().degraded == 12

    control.leave(3, 2.0)
    assert control.changes() == [Change(12, 2, admitted=True)]
    for key in (0, 1, 2, 4, 5, 6, 7):
        control.leave(key, 3.0)
    assert control.changes() == []
    levels = []
    for second in range(4, 40):
        control.observe(capacity(), float(second))
        levels.append(control.statistics().level)
    assert (levels.index(1), levels.index(0)) == (7, 17)  # a dwell time after the last change each, since all five fit well
    assert [c.steps for c in control.changes()] == [3] * 5 + [4] * 5


def test_sessions_follow_a_level_one_by_one() -> None:
    """Each opens a new leg; all at once they would stand in each other's way, and in that of who has just come."""
    control = AdmissionControl(CONFIG, capacity(), now=0.0)
    for key in range(7):
        control.arrive(key, LIVE, 0.0, 0.0)
    steps = dict.fromkeys(range(6), 4) | {6: 3}
    followed: list[tuple[float, int]] = []

    def take(now: float) -> None:
        for change in control.changes():
            steps[change.key] = change.steps
            followed.append((now, change.key))

    take(0.0)
    assert control.statistics().level == 1
    assert len(followed) == 1  # one may always
    for tick in range(1, 50):
        control.observe(capacity(), 0.1 * tick)
        take(0.1 * tick)
    assert [key for _, key in followed] == list(range(6))  # whoever has played longest first
    assert set(steps.values()) == {3}
    pace = CONFIG.brownout.turnover * 7
    assert all(n / pace - 1e-6 <= at <= n / pace + 0.1 + 1e-6 for n, (at, _) in enumerate(followed))  # up to a tick late


def test_who_leaves_or_recovers_meanwhile_is_not_changed() -> None:
    control = AdmissionControl(CONFIG, capacity(), now=0.0)
    for key in range(7):
        control.arrive(key, LIVE, 0.0, 0.0)
    assert [change.key for change in control.changes()] == [0]
    control.leave(1, 0.01)
    control.observe(capacity(48), 10.02)  # the level recovers before the others have followed
    assert control.statistics().level == 0
    control.observe(capacity(48), 20.0)
    assert {change.key: change.steps for change in control.changes()} == {0: 4, 6: 4}
    assert control.statistics().degraded == 0


def test_tenants_get_their_shares_by_weight() -> None:
    """Both always have three in line; slots are handed out as sessions end."""
    config = replace(CONFIG, brownout=BrownOutConfig(()), max_waiting=100, max_wait_s=1e9, tenants={"a": Tenant(3), "b": Tenant(1)})
    control = AdmissionControl(config, capacity(32), now=0.0)  # 8 sessions
    tenants: dict[int, str] = {}
    ends: dict[int, float] = {}
    used = {"a": 0.0, "b": 0.0}
    for second in range(600):
        now = float(second)
        for key in [key for key, end in ends.items() if end <= now]:
            del ends[key]
            control.leave(key, now)
        in_line = [tenants[key] for key in control.positions()]
        for name in used:
            for _ in range(3 - in_line.count(name)):
                key = len(tenants)
                tenants[key] = name
                if isinstance(control.arrive(key, Ask(name, 4, paced=True), now, 0.0), Admit):
                    ends[key] = now + 20
        ends.update({change.key: now + 20 + change.key % 7 for change in control.changes()})
        for key in ends:
            used[tenants[key]] += 1
    assert used["a"] / used["b"] == pytest.approx(3, rel=0.1)


def test_one_who_comes_back_has_no_credit_and_one_who_floods_gains_nothing() -> None:
    config = replace(CONFIG, brownout=BrownOutConfig(()), max_waiting=100, max_wait_s=1e9, tenants={"a": Tenant(), "b": Tenant()})
    control = AdmissionControl(config, capacity(8), now=0.0)  # 2 sessions
    for key in range(10):
        control.arrive(key, Ask("a", 4, paced=True), 0.0, 0.0)
    control.arrive(100, Ask("b", 4, paced=True), 1000.0, 0.0)
    control.arrive(101, Ask("b", 4, paced=True), 1000.0, 0.0)
    assert [key for key, _ in sorted(control.positions().items(), key=lambda item: item[1])][:4] == [100, 101, 2, 3]


@settings(max_examples=20)
@given(st.lists(st.sampled_from("ab"), min_size=1, max_size=30))
def test_nobody_in_line_starves(tenants: list[str]) -> None:
    """While sessions end, everybody in line is admitted, however many of the other tenant keep coming."""
    config = replace(CONFIG, brownout=BrownOutConfig(()), max_waiting=400, max_wait_s=1e9, tenants={"a": Tenant(5), "b": Tenant(1)})
    control = AdmissionControl(config, capacity(4), now=0.0)  # 1 session
    control.arrive(0, Ask("a", 4, paced=True), 0.0, 0.0)
    patient = set(range(1, 1 + len(tenants)))
    for key, name in zip(sorted(patient), tenants, strict=True):
        assert isinstance(control.arrive(key, Ask(name, 4, paced=True), 0.0, 0.0), Wait)
    running, key = 0, 1000
    for second in range(1, 400):
        control.arrive(key, Ask("a", 4, paced=True), float(second), 0.0)
        key += 1
        control.leave(running, float(second))
        (change,) = control.changes()
        running = change.key
        patient.discard(running)
        if not patient:
            return
    pytest.fail(f"{len(patient)} still wait")


def test_when_replicas_are_lost_as_many_follow_at_once_as_it_takes_to_be_in_real_time() -> None:
    """A session that waits for its turn with too many steps makes all of them late."""
    control = AdmissionControl(CONFIG, capacity(48), now=0.0)
    for key in range(10):
        control.arrive(key, LIVE, 0.0, 0.0)
    assert control.changes() == []  # 12 fit
    control.observe(capacity(), 1.0)  # half of the replicas are gone: 6 fit with 4 steps, 12 with 2
    assert control.statistics().level == 2
    at_once = control.changes()
    assert {change.steps for change in at_once} == {2}
    lowered, bound = len(at_once), CONFIG.brownout.overload
    assert capacity().load({2: lowered, 4: 10 - lowered}) <= bound
    assert capacity().load({2: lowered - 1, 4: 11 - lowered}) > bound  # and no more than that


def test_a_session_whose_steps_are_fixed_is_not_lowered_and_others_make_room_for_it() -> None:
    control, fixed = AdmissionControl(AT_ONCE, capacity(), now=0.0), replace(LIVE, fixed=True)
    assert control.arrive(0, fixed, 0.0, 0.0) == Admit(4, 0)
    for key in range(1, 6):
        control.arrive(key, LIVE, 0.0, 0.0)
    assert control.arrive(6, fixed, 1.0, 0.0) == Admit(4, 1)  # at level 1 two of 4 steps and five of 3 take 23 of 24
    assert control.statistics().level == 1
    assert {change.key for change in control.changes()} == {1, 2, 3, 4, 5}
    assert control.statistics().degraded == 5


def test_where_all_steps_are_fixed_nobody_is_lowered_and_the_next_one_waits() -> None:
    control, fixed = AdmissionControl(replace(AT_ONCE, max_wait_s=1e9), capacity(), now=0.0), replace(LIVE, fixed=True)
    assert [control.arrive(key, fixed, 0.0, 0.0) for key in range(7)] == [Admit(4, 0)] * 6 + [Wait(1)]
    control.observe(capacity(12), 1.0)  # a replica is lost
    assert control.changes() == []
    assert (control.statistics().level, control.statistics().degraded) == (0, 0)
