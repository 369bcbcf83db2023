import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaling.admission.brownout import BrownOut, BrownOutConfig, Running, default_tiers, least_tier
from autoscaling.capacity.profile import Capacity, CapacityProfile, DenoiseReplica

CONFIG = BrownOutConfig(tiers=(3, 2), dwell_s=10.0)


def capacity(correction: float = 1.0) -> Capacity:
    """Sessions of 4, 3, 2 steps: 6, 8, 12 at correction 1: cost is in proportion to steps."""
    buckets = tuple(range(1, 33))
    profile = CapacityProfile(buckets, tuple(0.01 * b for b in buckets), tuple(1e-9 * b for b in buckets))
    return Capacity((DenoiseReplica(64, profile, correction),), budget_s=0.2401, ceiling=64)


def test_the_capacity_of_these_tests() -> None:
    assert [capacity().sessions(steps) for steps in (4, 3, 2)] == [6, 8, 12]


def test_levels_cap_the_steps_and_never_raise_them() -> None:
    assert [CONFIG.steps(4, level) for level in range(3)] == [4, 3, 2]
    assert [CONFIG.steps(16, level) for level in range(3)] == [16, 3, 2]
    assert [CONFIG.steps(1, level) for level in range(3)] == [1, 1, 1]
    with pytest.raises(ValueError, match="strictly descending"):
        BrownOutConfig(tiers=(2, 3))


def test_down_at_once_as_far_as_needed_and_back_level_by_level() -> None:
    state = BrownOut().observe(CONFIG, capacity(2.0), Running({4: 6}), waiting=0, now=100.0)
    assert state == BrownOut(2, 100.0)
    for now, level in ((109.9, 2), (110.0, 1), (119.9, 1), (120.0, 0)):
        state = state.observe(CONFIG, capacity(), Running({4: 4}), waiting=0, now=now)
        assert state.level == level


def test_nothing_is_recovered_for_long_load_or_for_those_in_line() -> None:
    state = BrownOut(1, 0.0)
    assert state.observe(CONFIG, capacity(), Running({4: 6}), waiting=0, now=1e6) == state  # 6 of 6 would leave no room for one more
    assert state.observe(CONFIG, capacity(), Running({4: 5}), waiting=1, now=1e6) == state
    assert state.observe(CONFIG, capacity(), Running({4: 5}), waiting=0, now=1e6).level == 0


def test_a_little_over_the_estimate_is_noise() -> None:
    assert BrownOut().observe(CONFIG, capacity(), Running({4: 6}), waiting=0, now=0.0).level == 0
    assert BrownOut().observe(CONFIG, capacity(), Running({4: 7}), waiting=0, now=0.0).level == 1


def test_no_level_relieves_sessions_whose_steps_are_fixed_so_they_cause_none() -> None:
    assert CONFIG.load(capacity(), Running({4: 3}, {4: 3}), level=2) == CONFIG.load(capacity(), Running({2: 3, 4: 3}), level=0)
    assert BrownOut().observe(CONFIG, capacity(), Running(fixed={4: 12}), waiting=0, now=0.0).level == 0
    assert BrownOut().observe(CONFIG, capacity(), Running({4: 1}, {4: 12}), waiting=0, now=0.0).level == 2  # and one that helps a little
    assert BrownOut().observe(CONFIG, capacity(), Running({4: 5}, {4: 2}), waiting=0, now=0.0).level == 1
    fixed = Running(fixed={4: 5})
    assert BrownOut(1, 0.0).observe(CONFIG, capacity(), fixed, waiting=0, now=1e6).level == 0


def test_raised_is_only_ever_further_down() -> None:
    assert BrownOut(1, 5.0).raised(0, 9.0) == BrownOut(1, 5.0)
    assert BrownOut(1, 5.0).raised(2, 9.0) == BrownOut(2, 9.0)


@given(st.lists(st.tuples(st.integers(0, 14), st.floats(0.5, 3.0), st.floats(0.0, 5.0)), max_size=80))
def test_it_does_not_flap(events: list[tuple[int, float, float]]) -> None:
    """Whatever the load and the estimate do, each recovery comes a dwell time after the change before it."""
    state, now, last_change = BrownOut(), 0.0, float("-inf")
    for sessions, correction, pause in events:
        now += pause
        after = state.observe(CONFIG, capacity(correction), Running({4: sessions}), waiting=0, now=now)
        if after.level != state.level:
            assert after.since == now
            if after.level < state.level:
                assert after.level == state.level - 1
                assert now - last_change >= CONFIG.dwell_s
            last_change = now
        state = after


@given(st.integers(0, 14))
def test_a_steady_load_settles(sessions: int) -> None:
    state, levels = BrownOut(2, 0.0), []
    for second in range(100):
        state = state.observe(CONFIG, capacity(), Running({4: sessions}), waiting=0, now=float(second))
        levels.append(state.level)
    assert levels == sorted(levels, reverse=True)


@pytest.mark.parametrize(
    ("steps", "tiers"), [(1, ()), (2, (1,)), (3, (2,)), (4, (3, 2)), (5, (4, 3)), (6, (5, 3)), (8, (6, 4)), (9, ()), (30, ()), (50, ())]
)
def test_levels_are_shares_of_the_models_own_steps_and_a_model_of_many_has_none(steps: int, tiers: tuple[int, ...]) -> None:
    assert default_tiers(steps) == tiers
    assert all(least_tier(steps) <= tier < steps for tier in tiers)


def test_no_level_is_below_what_the_model_makes() -> None:
    assert [default_tiers(steps, min_steps=2) for steps in (2, 3, 4)] == [(), (2,), (3, 2)]
    assert default_tiers(8, min_steps=7) == (7,)
