"""What a scaling decision is made from, what it is bound by, and what it says. Frozen values, no behaviour but checks and words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from autoscaling.admission.brownout import BrownOutConfig
from autoscaling.capacity.estimate import DecodeReading, DenoiseReading, TextReading
from autoscaling.scaling.nodes import nodes_needed
from model_core.stage import Stage


@dataclass(frozen=True, slots=True)
class StageReplicas:
    """Replicas that run now, and that were asked for last: those that still start are the difference."""

    running: int
    target: int


@dataclass(frozen=True, slots=True)
class Observation:
    """The pipeline at one moment. Totals are counts since any fixed time, never falling, over all front doors.

    Attributes:
        live: paced sessions that hold a slot.
        waiting: paced sessions in line.
        jobs: sessions without playback to keep up with, running or in line; they use what is spare and only keep a stage from zero.
        arrivals_total: paced sessions that asked, those that were refused among them.
        ended_total: paced sessions that held a slot and ended.
        prompts_total: prompts to embed: one a session, and one a prompt change.
        chunks_total, late_chunks_total: chunks sent, and those sent after their playout deadline.
        first_frames_total, late_first_frames_total: sessions that got their first frame, and those that got it after the objective.
        replicas: of each stage.
        text, denoise, decode: what each running replica reports, as for admission.
        nodes: accelerator nodes that are up; None where that is not known.
        model: whose stages these are; empty for the application's default model.
    """

    live: int
    waiting: int
    arrivals_total: float
    ended_total: float
    prompts_total: float
    replicas: Mapping[Stage, StageReplicas]
    text: tuple[TextReading, ...] = ()
    denoise: tuple[DenoiseReading, ...] = ()
    decode: tuple[DecodeReading, ...] = ()
    jobs: int = 0
    chunks_total: float = 0.0
    late_chunks_total: float = 0.0
    first_frames_total: float = 0.0
    late_first_frames_total: float = 0.0
    nodes: int | None = None
    model: str = ""


@dataclass(frozen=True, slots=True)
class StageLimits:
    """Bounds of one stage. A `min_replicas` of 0 lets it scale to zero.

    Attributes:
        units: of the node's resource that one replica takes; 0 for a stage that runs elsewhere, whose nodes are not counted.
    """

    min_replicas: int = 1
    max_replicas: int = 1
    units: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.min_replicas <= self.max_replicas or self.max_replicas < 1:
            given = f"{self.min_replicas} to {self.max_replicas}"
            raise ValueError(f"min_replicas must be from 0 to max_replicas, which must be 1 or more; got {given}")
        if self.units < 0:
            raise ValueError(f"units must be 0 or more; got {self.units}")


@dataclass(frozen=True, slots=True)
class NodeShape:
    """Accelerator nodes: all alike, bought and given back whole.

    Attributes:
        units: of the resource on one node, for instance its NeuronCores.
        max_nodes: cap.
        start_s: from the request of a node to a replica that serves on it, without `ScalingConfig.replica_start_s`.
        cost_per_hour, budget_per_hour: of one node, and what all may cost together; a node cost of 0 makes no bound.
    """

    units: int
    max_nodes: int
    start_s: float = 160.0
    cost_per_hour: float = 0.0
    budget_per_hour: float = math.inf

    def __post_init__(self) -> None:
        for name, value, low in (("units", self.units, 1), ("max_nodes", self.max_nodes, 0), ("start_s", self.start_s, 0.0)):
            if value < low:
                raise ValueError(f"{name} must be {low:g} or more; got {value:g}")

    @property
    def cap(self) -> int:
        """Nodes that the cap and the budget both allow."""
        if self.cost_per_hour <= 0 or math.isinf(self.budget_per_hour):
            return self.max_nodes
        return min(self.max_nodes, math.floor(self.budget_per_hour / self.cost_per_hour))


@dataclass(frozen=True, slots=True)
class ScalingConfig:
    """Objectives, bounds and the pace of a pipeline's scaling.

    Attributes:
        chunk_s: playback seconds of one chunk.
        steps: denoise steps of full quality. Sizing is always for these, so that a brown-out ends as soon as replicas are there.
        limits: of each stage.
        nodes: None where no resource is counted, for instance on one machine.
        brownout: levels that admission may go to; the lowest one is what the burst floor and an exhausted budget rely on.
        utilisation: share of a chunk's length that may go into making the chunks of all sessions of a replica; as in admission.
        ttff_s: objective for the time to first frame.
        late_share: share of chunks, and of first frames, that may be late before more is provisioned than the model asks for.
        z: standard deviations of the demand to have room for at full quality; 1.28 is the 90th percentile.
        burst_z: likewise at the lowest quality, until a new node could serve.
        burst_k: a burst to so many times the usual number of sessions must fit at the lowest quality, too; 0: no such floor.
        burst_sessions: that must fit at the lowest quality whatever is seen, unless all is idle.
        replica_start_s: from the request of a replica to its first session, on a node that is there.
        fast_window_s, stable_window_s: over which arrival rates are taken.
        panic_ratio: fast over stable rate from which on the fast one counts, if chance does not explain it.
        panic_hold_s: nothing is scaled down until so long after the last panic.
        down_window_s: a stage goes down only to what was the most needed in this time.
        zero_after_s: without a session or an arrival for so long, a stage whose minimum is 0 may stop.
        prior_session_s: how long a session is taken to last until sessions have been seen to end.
        prior_sessions: that a denoise or decode replica holds, until one has been measured.
        prior_encode_s: for a prompt, likewise.
        decode_slots: see `autoscaling.reports.Terms`.
        fill_nodes: whether room on nodes that are paid for anyway is filled, with what lets most sessions fit at the lowest quality.
    """

    chunk_s: float
    steps: int
    limits: Mapping[Stage, StageLimits]
    nodes: NodeShape | None = None
    brownout: BrownOutConfig = field(default_factory=BrownOutConfig)
    utilisation: float = 0.8
    ttff_s: float = 1.0
    late_share: float = 0.001
    z: float = 1.28
    burst_z: float = 3.0
    burst_k: float = 2.0
    burst_sessions: float = 0.0
    replica_start_s: float = 40.0
    fast_window_s: float = 20.0
    stable_window_s: float = 180.0
    panic_ratio: float = 1.3
    panic_hold_s: float = 60.0
    down_window_s: float = 180.0
    zero_after_s: float = 300.0
    prior_session_s: float = 60.0
    prior_sessions: int = 8
    prior_encode_s: float = 0.05
    decode_slots: int = 0
    fill_nodes: bool = True

    def __post_init__(self) -> None:
        if missing := set(Stage) - set(self.limits):
            raise ValueError(f"limits must name every stage; {', '.join(sorted(missing))} missing")
        positive = ("chunk_s", "steps", "utilisation", "ttff_s", "fast_window_s", "stable_window_s", "panic_ratio", "prior_session_s")
        for name in (*positive, "prior_sessions", "prior_encode_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0; got {getattr(self, name):g}")
        for name in (
            "late_share",
            "z",
            "burst_z",
            "burst_k",
            "burst_sessions",
            "replica_start_s",
            "panic_hold_s",
            "down_window_s",
            "zero_after_s",
        ):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more; got {getattr(self, name):g}")
        if self.utilisation > 1:
            raise ValueError(f"utilisation must be at most 1; got {self.utilisation:g}")
        if self.stable_window_s < self.fast_window_s:
            raise ValueError(f"stable_window_s must be at least fast_window_s = {self.fast_window_s:g}; got {self.stable_window_s:g}")
        if self.nodes is not None:
            self._check_nodes(self.nodes)

    def _check_nodes(self, shape: NodeShape) -> None:
        if large := [s for s in Stage if self.units[s] > shape.units]:
            raise ValueError(f"units of a replica must be at most the {shape.units} of a node; {large[0]} takes {self.units[large[0]]}")
        fewest = nodes_needed({s: self.limits[s].min_replicas for s in Stage}, self.units, shape.units)
        if fewest > shape.cap:
            raise ValueError(f"min_replicas must fit the {shape.cap} nodes that max_nodes and budget_per_hour allow; they need {fewest}")

    @property
    def units(self) -> dict[Stage, int]:
        """Of a replica of each stage."""
        return {stage: self.limits[stage].units for stage in Stage}

    @property
    def budget_s(self) -> float:
        """Device seconds that may go into one chunk of every session of a replica."""
        return self.utilisation * self.chunk_s


class Cause(StrEnum):
    """What set a stage's number."""

    LOAD = "load"
    BURST_FLOOR = "burst floor"
    FILL = "fill"
    WINDOW = "window"
    PANIC_HOLD = "panic hold"
    LIMIT = "limit"
    NODES = "nodes on their way"
    BUDGET = "budget"
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why one stage's number changes; as text, one line.

    Attributes:
        load, unit: that the stage is sized for, and what it is counted in.
        per_replica: of the load, on one replica.
        horizon_s: how far ahead the load was taken.
    """

    stage: Stage
    before: int
    after: int
    cause: Cause
    load: float
    unit: str
    per_replica: float
    horizon_s: float

    def __str__(self) -> str:
        tail = "" if self.cause is Cause.LOAD else f", {self.cause}"
        return (
            f"{self.stage} {self.before}→{self.after}: {self.load:.3g} {self.unit} at {self.per_replica:.3g} per replica, "
            f"horizon {self.horizon_s:.3g} s{tail}"
        )


@dataclass(frozen=True, slots=True)
class Demand:
    """Sessions to have room for, and prompts a second.

    Attributes:
        now: that are here.
        replica_horizon: when a new replica would be ready.
        node_horizon: that are expected when a new node would be.
        burst: at the lowest quality.
        dispersion: of arrivals; see `autoscaling.scaling.demand.Clumping`.
    """

    now: float
    replica_horizon: float
    node_horizon: float
    burst: float
    prompts_per_s: float
    dispersion: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What to ask for.

    Attributes:
        replicas: of each stage, within its limits.
        nodes: to hold; None where none are counted.
        brownout_level: at which the sessions that are here fit `replicas`; above 0 only where limits or the budget bind.
        panic: whether the fast rate counts.
        sessions_per_replica: of full quality, on a denoise replica, by measurement.
        reasons: one for each stage whose number changes.
        model: the observation's.
    """

    replicas: Mapping[Stage, int]
    nodes: int | None
    brownout_level: int
    panic: bool
    demand: Demand
    sessions_per_replica: float
    reasons: tuple[Reason, ...]
    model: str = ""

    def explanation(self) -> str:
        """All changes in one line; empty where there are none."""
        parts = [str(reason) for reason in self.reasons]
        if parts and self.brownout_level:
            parts.append(f"brown-out {self.brownout_level} advised")
        return "; ".join(parts)
