"""How many enhance replicas: by the sessions that ask for one. It is apart from the plan, whose stages every session needs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from autoscaling.capacity.estimate import EnhanceReading, timed
from autoscaling.scaling.state import Peak


@dataclass(frozen=True, slots=True, kw_only=True)
class EnhanceConfig:
    """What bounds the number, and what a replica may take on.

    Attributes:
        budget_s: device seconds that all sessions of a replica may take for a chunk each.
        slots: sessions that a replica holds, whatever its speed; 0 for as many as it keeps up with.
        least, most: replicas.
        down_window_s: it goes down only to the most that was needed in this time.
        zero_after_s: the last one stops after so long without a session.
    """

    budget_s: float
    slots: int
    least: int
    most: int
    down_window_s: float
    zero_after_s: float


@dataclass(frozen=True, slots=True)
class EnhanceState:
    """Begin with `EnhanceState()`. `chunk_s` is what a chunk was measured to take; None before that."""

    chunk_s: float | None = None
    readings: Mapping[float, EnhanceReading] = field(default_factory=dict)
    peak: Peak = field(default_factory=Peak)
    busy_at: float = -math.inf


def enhance_replicas(
    sessions: int, readings: Sequence[EnhanceReading], config: EnhanceConfig, state: EnhanceState, now: float
) -> tuple[int, EnhanceState]:
    """Replicas for so many sessions, those that wait among them, by what the replicas report.

    Until a chunk has been measured, a replica is taken to hold its slots.
    """
    chunk_s = timed(state.chunk_s, readings, state.readings)
    held = float(config.slots or 1) if chunk_s is None else max(1.0, config.budget_s / chunk_s)
    held = min(held, config.slots or held)
    need = math.ceil(sessions / held)
    peak = state.peak.observe(now, need, config.down_window_s)
    busy_at = now if sessions else state.busy_at
    wanted = max(need, peak.value, 1 if now - busy_at < config.zero_after_s else 0)
    after = EnhanceState(chunk_s, {reading.replica: reading for reading in readings} or state.readings, peak, busy_at)
    return min(config.most, max(config.least, wanted)), after
