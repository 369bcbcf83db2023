from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaling.capacity.estimate import DecodeReading, DenoiseReading, Measured, TextReading
from autoscaling.capacity.profile import CapacityProfile
from autoscaling.scaling import Cause, NodeShape, Observation, Plan, ScalingConfig, StageLimits, StageReplicas, State, plan
from autoscaling.scaling.nodes import nodes_needed
from autoscaling.scaling.sizing import decode_sessions, encode_replicas
from model_core.stage import Stage

# 10 ms a forward whatever the batch: of 0.8 x 0.5 s, four steps and a commit fit eight sessions of a batch of 1, or all of a batch of 8.
PROFILE = CapacityProfile((1, 2, 4, 8), (0.03, 0.04, 0.06, 0.09), (0.01, 0.01, 0.02, 0.03))
LIMITS = {Stage.TEXT_ENCODER: StageLimits(1, 50), Stage.DENOISER: StageLimits(1, 400, 8), Stage.DECODER: StageLimits(1, 400, 2)}
CONFIG = ScalingConfig(chunk_s=0.5, steps=4, limits=LIMITS, z=2.33, burst_z=0.0, burst_k=0.0)
NODES = NodeShape(units=32, max_nodes=10)


def reports(busy: float = 0.0, expected: float = 0.0) -> tuple[DenoiseReading, ...]:
    return (DenoiseReading(1.0, 16, profile=PROFILE, busy_s=busy, expected_s=expected),)


def observation(live: int, waiting: int = 0, arrivals: float = 0.0, targets: Mapping[Stage, int] | None = None) -> Observation:
    targets = targets or dict.fromkeys(Stage, 1)
    return Observation(
        live=live, waiting=waiting, arrivals_total=arrivals, ended_total=max(0.0, arrivals - live), prompts_total=arrivals,
        replicas={stage: StageReplicas(targets[stage], targets[stage]) for stage in Stage},
        text=(TextReading(1.0, 100.0, 5.0),), denoise=reports(), decode=(DecodeReading(1.0, 100.0, 2.0),),
    )  # fmt: skip


class Run:
    """A pipeline that does at once what it is told."""

    def __init__(self, config: ScalingConfig, targets: Mapping[Stage, int] | None = None) -> None:
        self.config = config
        self.state = State()
        self.now = 0.0
        self.arrivals = 0.0
        self.targets = dict(targets or dict.fromkeys(Stage, 1))
        self.last: Plan
        self.endless = False  # sessions are not seen to end, so that all of them are taken to last as long

    def go(self, seconds: float, live: int, rate: float = 0.0, waiting: int = 0, every: float = 2.0) -> list[Plan]:
        plans = []
        for _ in range(round(seconds / every)):
            self.arrivals += rate * every
            seen = observation(live, waiting, self.arrivals, self.targets)
            seen = replace(seen, ended_total=0.0) if self.endless else seen
            self.last, self.state = plan(seen, self.config, self.state, self.now)
            self.targets = dict(self.last.replicas)
            self.now += every
            plans.append(self.last)
        return plans


def denoisers(plans: list[Plan]) -> list[int]:
    return [p.replicas[Stage.DENOISER] for p in plans]


def first(live: int, config: ScalingConfig = CONFIG, waiting: int = 0) -> Plan:
    decided, _ = plan(observation(live, waiting), config, State(), 0.0)
    return decided


loads = st.integers(0, 3000)
unhurried = settings(max_examples=40)


def test_capacity_is_what_the_profile_says_and_the_decoder_takes() -> None:
    decided = first(40)
    assert decided.sessions_per_replica == 8  # 4 x 90 ms and a commit of 30 ms are 390 ms of the 400; two more would need another forward
    assert decided.replicas[Stage.DENOISER] == 5
    assert decided.replicas[Stage.DECODER] == 2  # 20 ms a chunk: 20 sessions each
    assert str(decided.reasons[0]).startswith("denoiser 1→5: 40 sessions at 8 per replica, horizon 40 s")


@unhurried
@given(live=loads, waiting=st.integers(0, 200), cap=st.integers(1, 12), least=st.integers(0, 2))
def test_limits_cap_and_budget_hold_whatever_is_seen(live: int, waiting: int, cap: int, least: int) -> None:
    limits = {s: replace(LIMITS[s], min_replicas=least if s is Stage.DENOISER else 1, max_replicas=30) for s in Stage}
    shape = replace(NODES, cost_per_hour=2.0, budget_per_hour=2.0 * cap + 1)
    config = replace(CONFIG, limits=limits, nodes=shape, burst_k=3.0)
    decided = first(live, config, waiting=waiting)
    assert decided.nodes is not None
    assert decided.nodes <= min(cap, NODES.max_nodes)
    assert nodes_needed(decided.replicas, config.units, shape.units) <= decided.nodes
    assert all(limits[s].min_replicas <= decided.replicas[s] <= limits[s].max_replicas for s in Stage)


@unhurried
@given(live=loads, more=st.integers(0, 500), waiting=st.integers(0, 50), rate=st.floats(0, 20), faster=st.floats(0, 5))
def test_more_load_never_asks_for_less(live: int, more: int, waiting: int, rate: float, faster: float) -> None:
    less, greater = (Run(CONFIG) for _ in range(2))
    for run, n, r in ((less, live, rate), (greater, live + more, rate + faster)):
        run.endless = True
        run.go(30, n, r, waiting)
    assert all(greater.last.replicas[s] >= less.last.replicas[s] for s in Stage)


@unhurried
@given(live=st.integers(0, 2000), history=st.lists(st.integers(0, 2000), max_size=8))
def test_live_sessions_always_fit(live: int, history: list[int]) -> None:
    run = Run(CONFIG)
    for before in history:
        run.go(60, before, before / 60)
    run.go(2, live)
    assert run.last.replicas[Stage.DENOISER] * run.last.sessions_per_replica >= min(live, 400 * 8)
    assert run.last.brownout_level == 0


@unhurried
@given(live=st.integers(1, 500))
def test_a_constant_load_makes_nothing_flap(live: int) -> None:
    run = Run(replace(CONFIG, burst_k=2.0, nodes=replace(NODES, max_nodes=200)))
    run.go(200, live, live / 60)
    numbers = denoisers(run.go(800, live, live / 60))
    assert numbers in (sorted(numbers), sorted(numbers, reverse=True)), "estimates settle from one side"


def test_up_at_once_and_down_only_after_the_window() -> None:
    run = Run(CONFIG)
    run.go(200, 16, 0.2)
    before = run.last.replicas[Stage.DENOISER]
    assert denoisers(run.go(2, 80, 0.2))[0] >= 10
    low = denoisers(run.go(400, 16, 0.2))
    window = int(CONFIG.down_window_s / 2)
    assert min(low[: window - 1]) >= 10, "not before the peak has left the window"
    assert low[-1] <= before


def test_what_runs_at_the_first_decision_is_kept_for_a_window() -> None:
    run = Run(CONFIG, dict.fromkeys(Stage, 7))
    assert min(denoisers(run.go(CONFIG.down_window_s - 4, 4))) == 7
    assert denoisers(run.go(20, 4))[-1] == 1


def test_a_surge_of_arrivals_is_a_panic_and_nothing_goes_down_in_it() -> None:
    run = Run(replace(CONFIG, down_window_s=4.0, panic_hold_s=60.0), dict.fromkeys(Stage, 6))
    run.go(200, 8, 0.1)
    calm = run.last.replicas[Stage.DENOISER]
    surge = run.go(10, 8, 3.0)
    assert any(p.panic for p in surge)
    assert run.last.replicas[Stage.DENOISER] > calm, "the arrivals of the horizon have room before they are there"
    held = run.last.replicas[Stage.DENOISER]
    assert min(denoisers(run.go(56, 8, 0.0))) == held
    assert denoisers(run.go(60, 8, 0.0))[-1] < held


@settings(max_examples=10)
@given(history=st.lists(st.tuples(st.integers(0, 200), st.floats(0, 5)), min_size=1, max_size=8))
def test_what_only_fills_nodes_never_asks_for_one(history: list[tuple[int, float]]) -> None:
    """Not in a panic either: it holds need. If it held what fills, that would ask for the nodes that it fills, and so on."""
    config = replace(CONFIG, nodes=replace(NODES, max_nodes=100), panic_hold_s=1e6)
    filled, bare = (Run(replace(config, fill_nodes=fill)) for fill in (True, False))
    nodes = []
    for run in (filled, bare):
        plans = run.go(60, 40, 0.5) + run.go(6, 40, 6.0)
        assert any(p.panic for p in plans)
        for live, rate in history:
            plans += run.go(20, live, rate)
        nodes.append([p.nodes for p in plans])
    assert nodes[0] == nodes[1]


def test_arrivals_that_come_in_clumps_are_no_panic_but_need_more_room() -> None:
    even, clumped = (Run(replace(CONFIG, nodes=NODES)) for _ in range(2))
    for _ in range(30):
        even.go(60, 40, 0.5)
        clumped.go(6, 40, 5.0)
        clumped.go(54, 40, 0.0)
    assert clumped.state.traffic.clumping.dispersion > 5
    assert even.state.traffic.clumping.dispersion == 1
    assert not any(p.panic for p in clumped.go(6, 40, 5.0)), "a clump like all before it"
    assert any(p.panic for p in even.go(6, 40, 5.0))
    assert clumped.last.demand.replica_horizon > 45


def test_a_drifting_rate_is_not_taken_for_clumps() -> None:
    run = Run(CONFIG)
    for n in range(60):
        run.go(20, 40, 0.2 + 0.05 * n)
    assert run.state.traffic.clumping.dispersion < 1.5


def test_what_is_unlikely_has_room_at_the_lowest_quality() -> None:
    calm, careful = (Run(replace(CONFIG, z=0.0, burst_z=z, nodes=replace(NODES, max_nodes=50))) for z in (0.0, 4.0))
    for run in (calm, careful):
        run.go(600, 100, 1.0)
    lowest = PROFILE.capacity(2, CONFIG.budget_s, 1.0, 16)
    assert careful.last.replicas[Stage.DENOISER] * lowest >= careful.last.demand.burst > calm.last.demand.burst
    assert careful.last.demand.replica_horizon == calm.last.demand.replica_horizon


def test_a_node_is_filled_with_decoders_for_its_denoisers() -> None:
    """Sessions need both: what fits at the lowest quality on a paid node must not end at the decoders."""
    slow = (DecodeReading(1.0, 100.0, 4.0),)  # 40 ms a chunk: ten sessions on a decoder, twelve or more on a denoiser
    config = replace(CONFIG, nodes=NODES)
    decided, _ = plan(replace(observation(50), decode=slow, nodes=3), config, State(), 0.0)
    lowest = PROFILE.capacity(2, CONFIG.budget_s, 1.0, 16)
    shortfall = decided.replicas[Stage.DENOISER] * lowest - decided.replicas[Stage.DECODER] * 10
    assert decided.replicas[Stage.DECODER] > 5  # which is what 50 sessions need
    assert shortfall <= lowest


def test_to_zero_when_idle_and_back_with_the_first_in_line() -> None:
    limits = {s: replace(LIMITS[s], min_replicas=0) for s in Stage}
    run = Run(replace(CONFIG, limits=limits, nodes=NODES, burst_k=2.0))
    run.go(100, 12, 0.2)
    assert min(denoisers(run.go(CONFIG.zero_after_s, 0))) >= 1
    run.go(CONFIG.down_window_s + 4, 0)
    assert (set(run.last.replicas.values()), run.last.nodes) == ({0}, 0)
    run.go(2, 0, waiting=1)
    assert min(run.last.replicas.values()) >= 1
    assert run.last.nodes


def test_jobs_keep_a_stage_from_zero_but_do_not_size_it() -> None:
    limits = {s: replace(LIMITS[s], min_replicas=0) for s in Stage}
    config = replace(CONFIG, limits=limits)
    state, now = State(), 0.0
    for _ in range(600):
        decided, state = plan(replace(observation(0), jobs=40), config, state, now)
        now += 2.0
    assert decided.replicas[Stage.DENOISER] == 1


def test_the_floor_holds_a_burst_at_the_lowest_quality() -> None:
    run = Run(replace(CONFIG, burst_k=6.0))
    run.go(200, 16, 0.2)
    lowest = PROFILE.capacity(2, CONFIG.budget_s, 1.0, 16)
    assert run.last.replicas[Stage.DENOISER] == -(-6 * 16 // lowest)
    assert "burst floor" in " ".join(str(r) for r in first(16, replace(CONFIG, burst_k=6.0)).reasons)


def test_over_the_budget_quality_gives_way() -> None:
    tight = replace(CONFIG, nodes=replace(NODES, max_nodes=2))
    assert first(40, tight).brownout_level == 0
    over = first(80, tight)
    assert over.brownout_level > 0
    assert "brown-out" in over.explanation()
    assert "budget" in over.explanation()


def test_paid_nodes_are_filled_and_whole_nodes_are_released() -> None:
    config = replace(CONFIG, nodes=NODES)
    run = Run(config)
    run.go(20, 40)
    assert run.last.nodes == 2
    assert nodes_needed({**run.last.replicas, Stage.DENOISER: run.last.replicas[Stage.DENOISER] + 1}, config.units, 32) == 3
    run.go(800, 4, 0.05)
    assert run.last.nodes == 1
    assert nodes_needed(run.last.replicas, config.units, 32) == 1


def test_nodes_are_asked_for_ahead_of_replicas() -> None:
    run = Run(replace(CONFIG, nodes=NODES, fill_nodes=False))
    run.endless = True  # so that those who come stay
    run.go(60, 20, 1.0)
    assert run.last.nodes is not None
    assert run.last.demand.node_horizon > run.last.demand.replica_horizon
    assert run.last.nodes > nodes_needed(run.last.replicas, run.config.units, 32)


def test_a_need_that_a_node_would_be_too_late_for_buys_none() -> None:
    """Room for what is unlikely at full quality is taken where it is paid for; a node comes for what is expected when it does."""
    run = Run(replace(CONFIG, z=6.0, nodes=NODES, fill_nodes=False))
    run.go(600, 40, 0.5)
    assert run.last.demand.replica_horizon > 60 > run.last.demand.node_horizon
    assert run.last.nodes == 2
    assert nodes_needed(run.last.replicas, run.config.units, 32) == 2
    again, _ = plan(observation(40, arrivals=run.arrivals), run.config, run.state, run.now)
    assert Cause.NODES in {reason.cause for reason in again.reasons}


def test_a_node_that_is_to_go_is_not_filled() -> None:
    """Else what fills would be put on the node that was to be emptied, and it would stay."""
    run = Run(replace(CONFIG, nodes=NODES))
    run.go(20, 10)
    assert run.last.nodes == 1
    many, one = (
        plan(replace(observation(10, targets=run.targets), nodes=up), run.config, run.state, run.now)[0].replicas[Stage.DENOISER]
        for up in (3, 1)
    )
    assert (many, one) == (2, 3)


def test_a_floor_in_sessions_holds_at_the_lowest_quality_but_not_when_idle() -> None:
    lowest = PROFILE.capacity(2, CONFIG.budget_s, 1.0, 16)
    limits = {s: replace(LIMITS[s], min_replicas=0) for s in Stage}
    run = Run(replace(CONFIG, limits=limits, burst_sessions=100.0))
    run.go(20, 4)
    assert run.last.replicas[Stage.DENOISER] == -(-100 // lowest)
    run.go(CONFIG.zero_after_s + CONFIG.down_window_s + 4, 0)
    assert run.last.replicas[Stage.DENOISER] == 0


def test_text_encoders_take_a_clump_of_prompts() -> None:
    even, clumped = (encode_replicas(0.5, 0.05, 1.0, dispersion) for dispersion in (1.0, 9.0))
    assert even == 1
    assert clumped == 4, "eight of 50 ms more than one that comes alone, in a tenth of a second"


def test_slower_steps_than_the_profile_need_more_replicas() -> None:
    state, now, decided = State(), 0.0, first(40)
    for n in range(40):
        seen = replace(observation(40), denoise=reports(busy=2.0 * n, expected=1.0 * n))
        decided, state = plan(seen, CONFIG, state, now)
        now += 2.0
    assert decided.sessions_per_replica < 5
    assert decided.replicas[Stage.DENOISER] >= 10


def test_late_chunks_of_a_busy_stage_ask_for_more_and_of_an_idle_one_for_nothing() -> None:
    def after(live: int) -> int:
        state, decided = State(), first(live)
        targets = dict(decided.replicas)
        for n in range(120):
            seen = replace(observation(live, targets=targets), chunks_total=100.0 * n, late_chunks_total=10.0 * n)
            decided, state = plan(seen, CONFIG, state, 2.0 * n)
            targets = dict(decided.replicas)
        return decided.replicas[Stage.DENOISER]

    assert after(64) > first(64).replicas[Stage.DENOISER]
    assert after(2) == first(2).replicas[Stage.DENOISER]


def test_text_encoders_follow_prompts_before_sessions_are_there() -> None:
    run = Run(CONFIG)
    run.go(60, 4, 40.0)
    assert run.last.replicas[Stage.TEXT_ENCODER] >= 3  # 40 prompts/s of 50 ms each are 2 erlangs


@unhurried
@given(
    st.dictionaries(st.sampled_from(list(Stage)), st.integers(0, 40), min_size=3),
    st.integers(1, 16),
    st.integers(1, 16),
    st.integers(0, 16),
)
def test_packing_never_puts_more_on_nodes_than_they_hold(counts: dict[Stage, int], large: int, middle: int, small: int) -> None:
    units = dict(zip(Stage, (large, middle, small), strict=True))
    nodes = nodes_needed(counts, units, 16)
    assert nodes * 16 >= sum(units[s] * counts[s] for s in Stage)
    assert nodes <= sum(counts[s] for s in Stage if units[s])


def wrong_limits() -> StageLimits:
    return StageLimits(3, 2)


def wrong_windows() -> ScalingConfig:
    return replace(CONFIG, stable_window_s=5.0)


def minimum_beyond_the_budget() -> ScalingConfig:
    limits = {**LIMITS, Stage.DENOISER: StageLimits(9, 9, 8)}
    return replace(CONFIG, limits=limits, nodes=replace(NODES, cost_per_hour=10.0, budget_per_hour=20.0))


@pytest.mark.parametrize(
    ("make", "says"),
    [(wrong_limits, "min_replicas"), (wrong_windows, "stable_window_s"), (minimum_beyond_the_budget, "they need 3")],
)
def test_what_cannot_work_is_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


@unhurried
@given(live=st.integers(1, 300), large=st.integers(1, 8), small=st.integers(1, 8), cap=st.integers(3, 6))
def test_what_is_not_idle_keeps_one_of_each(live: int, large: int, small: int, cap: int) -> None:
    """On nodes so small that cutting to them could leave nothing of a stage."""
    limits = {Stage.TEXT_ENCODER: StageLimits(0, 5, 1), Stage.DENOISER: StageLimits(0, 50, large), Stage.DECODER: StageLimits(0, 50, small)}
    run = Run(replace(CONFIG, limits=limits, nodes=replace(NODES, units=8, max_nodes=cap)))
    plans = run.go(20, live) + run.go(20, 2) + run.go(20, live)
    assert all(min(p.replicas.values()) >= 1 for p in plans)
    assert all(nodes_needed(p.replicas, run.config.units, 8) <= (p.nodes or 0) <= cap for p in plans)


def test_a_decoder_is_counted_on_for_no_more_sessions_than_it_has_slots() -> None:
    limits = dict.fromkeys(Stage, StageLimits(1, 8))
    fast, unknown = Measured(chunk_decode=0.001), Measured()
    for slots, expected in ((0, 400.0), (4, 4.0)):
        config = ScalingConfig(chunk_s=0.5, steps=4, limits=limits, decode_slots=slots)
        assert decode_sessions(fast, config) == pytest.approx(expected)
    assert decode_sessions(unknown, ScalingConfig(chunk_s=0.5, steps=4, limits=limits, decode_slots=4)) == 4
