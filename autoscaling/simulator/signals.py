"""What a policy gets to see, as late as it gets to see it, and what it answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from autoscaling.scaling import Observation
from model_core.stage import Stage


@dataclass(frozen=True, slots=True)
class Sample:
    """The pipeline at one moment; `ongoing`: requests that each stage has in hand, as Serve counts them."""

    at: float
    observation: Observation
    ongoing: Mapping[Stage, float]


# No policy looks back further.
_KEPT_S = 600.0


@dataclass(slots=True)
class History:
    """Samples, oldest first, of the last minutes."""

    samples: deque[Sample] = field(default_factory=deque)

    def add(self, sample: Sample) -> None:
        """The newest."""
        self.samples.append(sample)
        while self.samples[0].at <= sample.at - _KEPT_S:
            self.samples.popleft()

    def as_of(self, at: float) -> Sample:
        """The newest sample not younger than `at`; the oldest, if all are."""
        return next((s for s in reversed(self.samples) if s.at <= at), self.samples[0])

    def pushed(self, now: float, push_s: float, look_back_s: float, stage: Stage) -> float:
        """Mean of `stage`'s ongoing requests over `look_back_s`, as of the last push; Serve's handles push every `push_s`."""
        until = now // push_s * push_s
        values: list[float] = []
        for sample in reversed(self.samples):
            if sample.at <= until - look_back_s:
                break
            if sample.at <= until:
                values.append(sample.ongoing[stage])
        return sum(values) / len(values) if values else 0.0


@dataclass(frozen=True, slots=True)
class Target:
    """Replicas of each stage, and nodes to hold at least; None where the policy does not speak of nodes."""

    replicas: Mapping[Stage, int]
    nodes: int | None = None


class Autoscaler(Protocol):
    """A policy with its state.

    Attributes:
        interval_s: between two decisions.
    """

    interval_s: float

    def decide(self, now: float, history: History) -> Target: ...
