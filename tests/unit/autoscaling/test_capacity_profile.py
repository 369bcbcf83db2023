import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaling.capacity.profile import Capacity, CapacityProfile, DenoiseReplica, corrected, decode_capacity

PROFILE = CapacityProfile((1, 2, 4), (0.010, 0.012, 0.020), (0.005, 0.006, 0.010))

times = st.floats(1e-4, 1.0)
profiles = st.builds(
    lambda rows: CapacityProfile(tuple(2**i for i in range(len(rows))), tuple(r[0] for r in rows), tuple(r[1] for r in rows)),
    st.lists(st.tuples(times, times), min_size=1, max_size=5),
)


def test_a_batch_is_padded_to_its_bucket_and_split_beyond_the_largest() -> None:
    assert PROFILE.chunk_s(0, 4) == 0
    assert PROFILE.chunk_s(3, 2) == pytest.approx(2 * 0.020 + 0.010)
    assert PROFILE.chunk_s(6, 2) == pytest.approx(2 * (0.020 + 0.012) + 0.010 + 0.006)


def test_capacity_is_the_last_count_that_fits_the_budget() -> None:
    assert PROFILE.capacity(4, 0.090, 1.0, 64) == 4
    assert PROFILE.capacity(4, 0.0899, 1.0, 64) == 2
    assert PROFILE.capacity(4, 0.090, 2.1, 64) == 0
    assert PROFILE.capacity(4, 1e9, 1.0, 16) == 16


def test_a_larger_bucket_that_measured_faster_was_noise() -> None:
    assert CapacityProfile((1, 2), (0.02, 0.01), (0.01, 0.01)).step_s == (0.02, 0.02)


@pytest.mark.parametrize(
    ("buckets", "step_s", "told"),
    [
        ((), (), "buckets must ascend"),
        ((2, 1), (0.1, 0.1), "buckets must ascend"),
        ((1, 2), (0.1,), "step_s must be 2 positive numbers"),
        ((1,), (math.nan,), "step_s must be 1 positive numbers"),
    ],
)
def test_a_profile_that_makes_no_sense_is_refused(buckets: tuple[int, ...], step_s: tuple[float, ...], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        CapacityProfile(buckets, step_s, step_s)


@given(profiles, st.integers(1, 40), st.integers(1, 16))
def test_more_sessions_or_more_steps_never_take_less(profile: CapacityProfile, sessions: int, steps: int) -> None:
    busy = profile.chunk_s(sessions, steps)
    assert busy <= profile.chunk_s(sessions + 1, steps) + 1e-12
    assert busy < profile.chunk_s(sessions, steps + 1)


@given(profiles, st.integers(1, 16), st.floats(0.001, 10), st.floats(0.25, 16), st.integers(0, 64))
def test_capacity_fits_and_one_more_does_not(profile: CapacityProfile, steps: int, budget_s: float, kappa: float, slots: int) -> None:
    n = profile.capacity(steps, budget_s, kappa, slots)
    assert n == 0 or kappa * profile.chunk_s(n, steps) <= budget_s
    assert n == slots or kappa * profile.chunk_s(n + 1, steps) > budget_s


def test_the_correction_follows_the_evidence() -> None:
    assert corrected(1.5, 1.0, 0.0) == 1.5
    little, much = corrected(1.0, 0.02, 0.01), corrected(1.0, 20.0, 10.0)
    assert 1 < little < 1.01
    assert 1.98 < much < 2
    assert corrected(1.0, 1e9, 10.0) <= 16


def test_a_cluster_holds_what_its_scarcest_stage_holds() -> None:
    replica = DenoiseReplica(slots=16, profile=PROFILE)
    two = Capacity((replica, replica), budget_s=0.090, ceiling=64)
    assert two.sessions(4) == 8
    assert Capacity((replica, replica), 0.090, ceiling=64, decode_sessions=decode_capacity(0.020, 0.090, 1)).sessions(4) == 4
    assert Capacity((replica, replica), 0.090, ceiling=3).sessions(4) == 3
    assert two.load({4: 2}) == pytest.approx(0.25)
    assert decode_capacity(None, 0.1, 1) is None


def test_without_a_profile_slots_are_the_capacity_and_a_slow_machine_serves_one() -> None:
    unknown = Capacity((DenoiseReplica(slots=5),), budget_s=0.1, ceiling=64)
    assert (unknown.sessions(16), unknown.measured) == (5, False)
    slow = Capacity((DenoiseReplica(slots=5, profile=PROFILE, correction=16),), budget_s=0.1, ceiling=64)
    assert (slow.sessions(4), slow.measured) == (1, True)
