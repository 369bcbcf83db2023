"""What a run came to: sums over the measured part, and series over all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from autoscaling.simulator.arrays import Floats
from model_core.stage import Stage

SERIES = ("live", "waiting", "level", "nodes", *(f"{stage}" for stage in Stage))


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run, from the end of the warm-up on.

    Attributes:
        arrivals: visitors.
        ttff_share: of them, had their first frame within the objective; who was refused, went away or was killed before it, had not.
        on_time_share: of chunks.
        degraded_share: of chunks, with fewer steps than asked for.
        killed, refused, abandoned: sessions that lost their place; visitors who never got one; who would not wait.
        node_hours, replica_hours: paid for.
        cost: for each second of video that was on time.
        good_s: seconds of such video.
        events: forwards and chunks of the data plane, and events of the control plane.
    """

    arrivals: int
    ttff_share: float
    ttff_p50_s: float
    ttff_p99_s: float
    on_time_share: float
    degraded_share: float
    killed: int
    refused: int
    abandoned: int
    node_hours: float
    replica_hours: Mapping[str, float]
    cost: float
    good_s: float
    peak_sessions: int
    events: int


@dataclass(slots=True)
class Timeline:
    """Series over a run: `every_s` apart, by name; `ttff` in ms (p99) and `on_time` (share) by the same bins."""

    every_s: float
    at_s: list[float] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in SERIES})
    ttff_p99_s: list[float] = field(default_factory=list)
    on_time: list[float] = field(default_factory=list)

    def sample(self, at: float, **values: float) -> None:
        """One moment."""
        self.at_s.append(at)
        for name, value in values.items():
            self.values[name].append(value)


@dataclass(slots=True)
class Books:
    """Visitors, counted by the simulation: `present` is whoever is in line, running, or coming back later."""

    arrived: int = 0
    ended: int = 0
    killed: int = 0
    refused: int = 0
    abandoned: int = 0
    prompts: int = 0
    present: set[int] = field(default_factory=set)

    def balanced(self) -> bool:
        """Nobody is lost or counted twice."""
        return self.arrived == self.ended + self.killed + self.refused + self.abandoned + len(self.present)


def quantile(values: Floats, q: float) -> float:
    """Linear between order statistics; 0 of nothing."""
    return float(np.quantile(values, q)) if values.size else 0.0


def by_bin(at: Floats, values: Floats, bins: int, bin_s: float, q: float) -> list[float]:
    """The q-quantile of `values` in each time bin of `at`; 0 where there is none."""
    where = np.minimum((at / bin_s).astype(int), bins - 1)
    return [round(quantile(values[where == k], q), 4) for k in range(bins)]
