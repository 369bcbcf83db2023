"""The decision. Demand → replicas of each stage → burst floor → limits → windows → whole nodes and budget → plan.

Up at once. Down to the most that was needed in the window, not while a panic is fresh, and to zero only when idle.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace

from autoscaling.scaling.demand import Rates, occupancy
from autoscaling.scaling.nodes import most_that_fit, nodes_needed
from autoscaling.scaling.sizing import decode_sessions, denoise_sessions, encode_replicas
from autoscaling.scaling.state import Peak, State
from autoscaling.scaling.types import Cause, Demand, NodeShape, Observation, Plan, Reason, ScalingConfig
from model_core.stage import Stage

_NODES = "nodes"
Counts = dict[Stage, int]
# Prompts a second are counted over short times: room for so many deviations of a Poisson number.
_PROMPT_Z = 2.0
# A sum of fractions that is a whole number but for rounding.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class _Speeds:
    """What one replica does: sessions on a denoiser at full quality and at the lowest, on a decoder, seconds for a prompt."""

    denoise: float
    denoise_lowest: float
    decode: float
    encode_s: float


def plan(observation: Observation, config: ScalingConfig, state: State, now: float) -> tuple[Plan, State]:
    """What to ask for at `now`, and what to remember. `now` must not fall from one call to the next.

    The plan is within `config.limits`, and on no more nodes than cap and budget allow, whatever is observed.
    """
    first = state.busy_at is None
    state = state.heard(observation, config, now)
    speeds = _speeds(state, config)
    load = observation.live / (max(1, observation.replicas[Stage.DENOISER].running) * speeds.denoise)
    state = replace(state, lateness=state.lateness.observe(observation, config, now, load=load))
    rates = state.rates(config)
    if rates.surprising:
        state = replace(state, calm_from=now + config.panic_hold_s)

    demand = _demand(observation, config, state, rates)
    idle = now - (state.busy_at or now) >= config.zero_after_s
    causes = dict.fromkeys(Stage, Cause.IDLE if idle else Cause.LOAD)
    need = _need(demand.replica_horizon, demand, speeds, config, idle=idle)
    ahead = _need(demand.node_horizon, demand, speeds, config, idle=idle)
    if not idle:
        for counts in (need, ahead):
            _raise(counts, _at_lowest(demand.burst, speeds), causes, Cause.BURST_FLOOR)
    held = _held(need, observation, config, state, now, causes, first=first)
    state = replace(state, peaks={**state.peaks, **held.peaks})
    counts, nodes, state = _on_nodes(held.counts, ahead, speeds, observation, config, state, now, causes, first=first)
    level = _brownout_level(observation.live + observation.waiting, counts, state, config, speeds)
    reasons = _reasons(counts, observation, demand, speeds, config, causes)
    decided = Plan(
        replicas=counts,
        nodes=nodes,
        brownout_level=level,
        panic=rates.surprising,
        demand=demand,
        sessions_per_replica=speeds.denoise,
        reasons=reasons,
        model=observation.model,
    )
    return decided, state


def _speeds(state: State, config: ScalingConfig) -> _Speeds:
    lowest = config.brownout.steps(config.steps, config.brownout.lowest)
    encode = state.measured.encode
    return _Speeds(
        denoise_sessions(state.measured, config, config.steps),
        denoise_sessions(state.measured, config, lowest),
        decode_sessions(state.measured, config),
        config.prior_encode_s if encode is None else encode,
    )


def _demand(seen: Observation, config: ScalingConfig, state: State, rates: Rates) -> Demand:
    present, session_s, pressure = float(seen.live + seen.waiting), state.traffic.session_s(config.prior_session_s), state.lateness.pressure
    node_s = config.replica_start_s + (config.nodes.start_s if config.nodes else 0.0)
    dispersion = state.traffic.clumping.dispersion

    def expected(horizon_s: float, z: float) -> float:
        rate = rates.over(horizon_s, config.fast_window_s)
        return pressure * occupancy(present, rate, session_s, horizon_s, z, dispersion)

    prompts = max(rates.prompts, rates.over(0.0, config.fast_window_s))
    return Demand(
        now=present,
        replica_horizon=expected(config.replica_start_s, config.z),
        node_horizon=expected(node_s, 0.0),
        burst=max(config.burst_sessions, config.burst_k * state.traffic.usual, expected(node_s, config.burst_z)),
        prompts_per_s=prompts + _PROMPT_Z * math.sqrt(prompts / config.fast_window_s),
        dispersion=dispersion,
    )


def _need(sessions: float, demand: Demand, speeds: _Speeds, config: ScalingConfig, *, idle: bool) -> Counts:
    if idle:
        return dict.fromkeys(Stage, 0)
    return {
        Stage.TEXT_ENCODER: encode_replicas(demand.prompts_per_s, speeds.encode_s, config.ttff_s, demand.dispersion),
        **_sessions_need(sessions, speeds),
    }


def _sessions_need(sessions: float, speeds: _Speeds) -> Counts:
    """At least one of each: what is not idle must be served."""
    return {
        Stage.DENOISER: max(1, math.ceil(sessions / speeds.denoise - _ROUNDING)),
        Stage.DECODER: max(1, math.ceil(sessions / speeds.decode - _ROUNDING)),
    }


def _at_lowest(sessions: float, speeds: _Speeds) -> Counts:
    """Room for `sessions` at the lowest quality: for a burst that no new replica could be in time for."""
    return {
        Stage.DENOISER: math.ceil(sessions / speeds.denoise_lowest - _ROUNDING),
        Stage.DECODER: math.ceil(sessions / speeds.decode - _ROUNDING),
    }


def _raise(counts: Counts, least: Mapping[Stage, int], causes: dict[Stage, Cause], cause: Cause) -> None:
    for stage, number in least.items():
        if number > counts[stage]:
            counts[stage] = number
            causes[stage] = cause


@dataclass(frozen=True, slots=True)
class _Held:
    counts: Counts
    peaks: dict[Stage | str, Peak]


def _held(
    need: Counts, seen: Observation, config: ScalingConfig, state: State, now: float, causes: dict[Stage, Cause], *, first: bool
) -> _Held:
    """`need` within the limits, and not below what was needed in the window, which does not end while a panic is fresh.

    What a panic holds is need, never the target: denoisers that only fill nodes would be held, ask for nodes of their own, and fill those.
    """
    counts: Counts = {}
    peaks: dict[Stage | str, Peak] = {}
    window_s = math.inf if now < state.calm_from else config.down_window_s
    for stage in Stage:
        limits, target = config.limits[stage], seen.replicas[stage].target
        peak = state.peaks.get(stage, Peak())
        if first:  # what is there when the first decision falls was somebody's need
            peak = peak.observe(now, target, window_s)
        peak = peak.observe(now, need[stage], window_s)
        if (wanted := max(need[stage], peak.value)) > need[stage]:
            causes[stage] = Cause.PANIC_HOLD if now < state.calm_from else Cause.WINDOW
        bounded = min(limits.max_replicas, max(limits.min_replicas, wanted))
        if bounded != wanted:
            causes[stage] = Cause.LIMIT
        counts[stage], peaks[stage] = bounded, peak
    return _Held(counts, peaks)


def _on_nodes(
    counts: Counts, ahead: Counts, speeds: _Speeds, seen: Observation, config: ScalingConfig, state: State, now: float,
    causes: dict[Stage, Cause], *, first: bool,
) -> tuple[Counts, int | None, State]:  # fmt: skip
    """Nodes for what is expected when they could serve, within cap and budget; as many replicas as they hold, and no fewer.

    A need that is nearer than a node's start buys none, which would come too late for it: until then quality gives way.
    """
    shape = config.nodes
    if shape is None:
        return counts, None, state
    later = {s: min(config.limits[s].max_replicas, max(config.limits[s].min_replicas, ahead[s])) for s in Stage}
    needed = nodes_needed(later, config.units, shape.units)
    if first:
        needed = max(needed, nodes_needed(counts, config.units, shape.units))
    peak = state.peaks.get(_NODES, Peak()).observe(now, min(shape.cap, needed), config.down_window_s)
    state = replace(state, peaks={**state.peaks, _NODES: peak})
    nodes = peak.value
    counts = _fitted(counts, later, nodes, speeds, config, shape, causes)
    if config.fill_nodes and counts[Stage.DENOISER] and config.units[Stage.DENOISER]:
        paid = nodes if seen.nodes is None else seen.nodes
        if paid <= nodes:  # else a node must be emptied first: what fills would go on it
            _raise(counts, _filling(counts, paid, speeds, config, shape), causes, Cause.FILL)
    return counts, nodes, state


def _filling(counts: Counts, nodes: int, speeds: _Speeds, config: ScalingConfig, shape: NodeShape) -> Counts:
    """`counts` and what else `nodes` hold: denoisers with the decoders they feed at the lowest quality, so that a burst finds both."""
    units, most = config.units, {stage: config.limits[stage].max_replicas for stage in Stage}
    stages = [stage for stage in (Stage.DENOISER, Stage.DECODER) if units[stage]]

    def fed(denoisers: int) -> Counts:
        # To the nearest, not up: of what only fills, a measurement that flickers about a whole number must not move anything.
        wanted = {Stage.DENOISER: denoisers, Stage.DECODER: round(denoisers * speeds.denoise_lowest / speeds.decode)}
        return {**counts, **{stage: min(most[stage], max(counts[stage], wanted[stage])) for stage in stages}}

    def too_many(denoisers: int) -> bool:
        return nodes_needed(fed(denoisers), units, shape.units) > nodes

    room = min(most[Stage.DENOISER], nodes * (shape.units // units[Stage.DENOISER]))
    fitting = bisect_left(range(room + 1), True, key=too_many)
    filled = fed(fitting - 1) if fitting else counts
    return {**filled, Stage.DENOISER: most_that_fit(Stage.DENOISER, filled, nodes, units, shape.units, room)}


def _fitted(
    counts: Counts, later: Counts, nodes: int, speeds: _Speeds, config: ScalingConfig, shape: NodeShape, causes: dict[Stage, Cause]
) -> Counts:
    """`counts`, or as many denoisers as fit on `nodes`, with the decoders that they can feed at the lowest quality.

    One of each that is needed `later` stays, if cap and budget let it: what is not idle must be served.
    """

    def fits(wanted: Counts) -> bool:
        return nodes_needed(wanted, config.units, shape.units) <= nodes

    def cut(denoisers: int) -> Counts:
        fed = math.ceil(denoisers * speeds.denoise_lowest / speeds.decode)
        return {**counts, Stage.DENOISER: denoisers, Stage.DECODER: max(least[Stage.DECODER], min(counts[Stage.DECODER], fed))}

    if fits(counts):
        return counts
    # The minima always fit, or the configuration would have been refused.
    minima = {stage: config.limits[stage].min_replicas for stage in Stage}
    one_each = {stage: max(minima[stage], min(1, later[stage])) for stage in Stage}
    least = one_each if fits(one_each) else minima
    # Fewest denoisers that no longer fit, less one.
    denoisers = bisect_left(range(least[Stage.DENOISER], counts[Stage.DENOISER] + 1), True, key=lambda n: not fits(cut(n)))
    fitted = cut(least[Stage.DENOISER] + denoisers - 1) if denoisers else least
    for stage in Stage:
        if fitted[stage] != counts[stage]:
            causes[stage] = Cause.BUDGET if nodes == shape.cap else Cause.NODES
    return fitted


def _brownout_level(sessions: int, counts: Counts, state: State, config: ScalingConfig, speeds: _Speeds) -> int:
    """The first level at which `sessions` are in real time on the denoisers that will be there; the lowest if none is."""
    for level in range(config.brownout.lowest):
        per_replica = speeds.denoise if level == 0 else denoise_sessions(state.measured, config, config.brownout.steps(config.steps, level))
        if sessions <= counts[Stage.DENOISER] * per_replica + _ROUNDING:
            return level
    return config.brownout.lowest


def _reasons(
    counts: Counts, seen: Observation, demand: Demand, speeds: _Speeds, config: ScalingConfig, causes: Mapping[Stage, Cause]
) -> tuple[Reason, ...]:
    loads = {
        Stage.TEXT_ENCODER: (demand.prompts_per_s, "prompts/s", 1 / speeds.encode_s),
        Stage.DENOISER: (demand.replica_horizon, "sessions", speeds.denoise),
        Stage.DECODER: (demand.replica_horizon, "sessions", speeds.decode),
    }
    return tuple(
        Reason(stage, seen.replicas[stage].target, counts[stage], causes[stage], *loads[stage], config.replica_start_s)
        for stage in Stage
        if counts[stage] != seen.replicas[stage].target
    )
