"""Policies for the simulator: our own `autoscaling.scaling.plan`, a fixed number, thresholds on utilisation, and the settings of Ray's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from autoscaling.capacity.estimate import DecodeReading, DenoiseReading, TextReading
from autoscaling.scaling import ScalingConfig, State, plan
from autoscaling.simulator.signals import History, Sample, Target
from model_core.stage import Stage


@dataclass(slots=True)
class Ours:
    """`autoscaling.scaling.plan`, on signals that are `lag_s` old."""

    config: ScalingConfig
    interval_s: float = 2.0
    lag_s: float = 3.0
    explained: list[str] = field(default_factory=list)
    _state: State = field(default_factory=State)

    def decide(self, now: float, history: History) -> Target:
        # What replicas and front doors report comes late; what the controller has asked for, it knows.
        late, newest = history.as_of(now - self.lag_s).observation, history.samples[-1].observation
        seen = replace(late, replicas=newest.replicas, nodes=newest.nodes)
        decision, self._state = plan(seen, self.config, self._state, now)
        if line := decision.explanation():
            self.explained.append(f"{now:.0f} s: {line}")
        return Target(decision.replicas, decision.nodes)


@dataclass(frozen=True, slots=True)
class RaySettings:
    """Settings of Ray Serve's default policy; `deployments.scaling.simulated_ray` runs it.

    Out of the box, Serve waits 30 s before it scales up and 600 s before it scales down, averages over 30 s, and handles push every 10 s.

    Attributes:
        target: ongoing requests per replica, as a share of the requests that a replica serves in real time.
        floor: minimum replicas, as a share of the replicas that the usual number of sessions needs.
        up_s, down_s: delay before scaling up and down.
        look_back_s: window over which Serve averages requests.
        push_s: how often handles report their requests.
    """

    target: float = 0.8
    floor: float = 2.0
    up_s: float = 0.0
    down_s: float = 180.0
    look_back_s: float = 10.0
    push_s: float = 2.0


@dataclass(slots=True)
class Static:
    """The same for ever."""

    replicas: Mapping[Stage, int]
    interval_s: float = 60.0

    def decide(self, now: float, history: History) -> Target:
        return Target(self.replicas)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """As LightX2V's disaggregation controller is described: each stage by itself, one instance at a time, with a pause between changes.

    Out when the stage's mean utilisation or its queue is high, in when utilisation is low and nothing waits.

    Attributes:
        out_above, in_below: utilisation.
        queue: requests waiting for each replica, above which it goes out.
        cooldown_s: pause.
        window_s: over which utilisation is taken.
        least, most: replicas of each stage.
    """

    out_above: float = 0.8
    in_below: float = 0.2
    queue: float = 2.0
    cooldown_s: float = 30.0
    window_s: float = 10.0
    least: Mapping[Stage, int] = field(default_factory=lambda: dict.fromkeys(Stage, 1))
    most: Mapping[Stage, int] = field(default_factory=lambda: dict.fromkeys(Stage, 64))


@dataclass(slots=True)
class Utilisation:
    """`Thresholds` over time."""

    thresholds: Thresholds
    interval_s: float = 1.0
    lag_s: float = 1.0
    _target: dict[Stage, int] = field(default_factory=dict)
    _changed_at: dict[Stage, float] = field(default_factory=lambda: dict.fromkeys(Stage, -math.inf))

    def decide(self, now: float, history: History) -> Target:
        t, newest = self.thresholds, history.as_of(now - self.lag_s)
        before = history.as_of(newest.at - t.window_s)
        for stage in Stage:
            replicas = newest.observation.replicas[stage]
            target = self._target.setdefault(stage, replicas.target)
            busy = busy_share(before, newest, stage)
            queue = newest.observation.waiting / max(1, replicas.running) if stage is Stage.DENOISER else 0.0
            if now - self._changed_at[stage] < t.cooldown_s or replicas.running == 0:
                continue
            step = 1 if busy > t.out_above or queue > t.queue else -1 if busy < t.in_below and queue == 0 else 0
            if (new := min(t.most[stage], max(t.least[stage], target + step))) != target:
                self._target[stage], self._changed_at[stage] = new, now
        return Target(dict(self._target))


def busy_share(before: Sample, after: Sample, stage: Stage) -> float:
    """Mean share of the time between two samples that the replicas of `stage` which both know were busy."""
    if after.at <= before.at:
        return 0.0
    earlier, later = _busy(before, stage), _busy(after, stage)
    shares = [(later[name] - earlier[name]) / (after.at - before.at) for name in later if name in earlier]
    return sum(shares) / len(shares) if shares else 0.0


def _busy(sample: Sample, stage: Stage) -> dict[float, float]:
    o = sample.observation
    reports: Mapping[Stage, Sequence[TextReading | DenoiseReading | DecodeReading]] = {
        Stage.TEXT_ENCODER: o.text, Stage.DENOISER: o.denoise, Stage.DECODER: o.decode
    }  # fmt: skip
    return {report.replica: report.busy_s for report in reports[stage]}
