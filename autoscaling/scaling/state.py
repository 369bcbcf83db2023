"""What a planner remembers between two decisions. Frozen; each decision returns the next one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from autoscaling.capacity.estimate import Measured
from autoscaling.scaling.demand import Rates, Sample, Traffic
from autoscaling.scaling.types import Observation, ScalingConfig
from model_core.stage import Stage

# Chunks, or first frames, from which on a share of late ones means something, and the least time to see them in.
_ENOUGH, _LEAST_S = 50.0, 30.0
# By how much more than the model asks for is provisioned after a period in which too many were late, and at most.
_STEP, _MOST = 0.1, 1.5
# Replicas must have been this busy for lateness to be taken as a lack of them.
_BUSY = 0.5


@dataclass(frozen=True, slots=True)
class Peak:
    """Maximum of a number over a window of time: what may still become it, oldest and highest first."""

    points: tuple[tuple[float, int], ...] = ()

    def observe(self, now: float, value: int, window_s: float) -> Peak:
        kept = [point for point in self.points if point[0] > now - window_s and point[1] > value]
        return Peak((*kept, (now, value)))

    @property
    def value(self) -> int:
        return self.points[0][1] if self.points else 0


@dataclass(frozen=True, slots=True)
class Lateness:
    """Feedback from the objective: `pressure` multiplies the demand, from 1 up.

    Attributes:
        since, chunks, late, firsts, late_firsts: time and totals when the present period began.
    """

    pressure: float = 1.0
    since: float = -math.inf
    chunks: float = 0.0
    late: float = 0.0
    firsts: float = 0.0
    late_firsts: float = 0.0

    def observe(self, seen: Observation, config: ScalingConfig, now: float, *, load: float) -> Lateness:
        """`load`: share of the running replicas' capacity that is in use. While replicas start or stop, nothing is concluded."""
        totals = (seen.chunks_total, seen.late_chunks_total, seen.first_frames_total, seen.late_first_frames_total)
        begun = Lateness(self.pressure, now, *totals)
        if self.since == -math.inf or any(stage.running != stage.target for stage in seen.replicas.values()):
            return begun
        chunks, firsts = seen.chunks_total - self.chunks, seen.first_frames_total - self.firsts
        if now - self.since < _LEAST_S or chunks < _ENOUGH:
            return self
        late = (seen.late_chunks_total - self.late) > _tolerated(chunks, config.late_share)
        slow = (seen.late_first_frames_total - self.late_firsts) > _tolerated(firsts, config.late_share)
        if (late or slow) and load >= _BUSY:
            return replace(begun, pressure=min(_MOST, self.pressure + _STEP))
        return replace(begun, pressure=max(1.0, self.pressure - _STEP * min(1.0, (now - self.since) / max(1.0, config.down_window_s))))


@dataclass(frozen=True, slots=True)
class State:
    """Begin with `State()`. It holds what would be lost by starting anew: some minutes of history, nothing else.

    Attributes:
        calm_from: when the last panic, or the first decision, is far enough back for a scale-down.
        busy_at: when there was last a session or an arrival.
        peaks: need of each stage, and of nodes, over the down window.
    """

    traffic: Traffic = field(default_factory=Traffic)
    measured: Measured = field(default_factory=Measured)
    lateness: Lateness = field(default_factory=Lateness)
    peaks: Mapping[Stage | str, Peak] = field(default_factory=dict)
    calm_from: float = -math.inf
    busy_at: float | None = None

    def heard(self, seen: Observation, config: ScalingConfig, now: float) -> State:
        """With what `seen` says of traffic and speeds."""
        before = self.traffic.samples[-1] if self.traffic.samples else None
        arrived = before is not None and seen.arrivals_total > before.arrivals
        busy = arrived or seen.live + seen.waiting + seen.jobs > 0 or self.busy_at is None
        sample = Sample(now, seen.arrivals_total, seen.prompts_total)
        return replace(
            self,
            traffic=self.traffic.observe(sample, seen.live, seen.ended_total, config.fast_window_s, config.stable_window_s),
            measured=self.measured.observe(seen.denoise, seen.decode, seen.text),
            busy_at=now if busy else self.busy_at,
        )

    def rates(self, config: ScalingConfig) -> Rates:
        return self.traffic.rates(config.fast_window_s, config.stable_window_s, config.panic_ratio)


def _tolerated(count: float, share: float) -> float:
    """Late ones among `count` that a share of `share` explains."""
    expected = count * share
    return expected + 3.0 * math.sqrt(max(1.0, expected))
