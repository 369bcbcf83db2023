"""Policies by name for the simulator, beside each other on equal terms: same stages, admission, brown-out, hand-over and routing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, cast, get_args

import numpy as np

from autoscaling.scaling import ScalingConfig
from autoscaling.simulator.policies import Ours, RaySettings, Static, Thresholds, Utilisation
from autoscaling.simulator.presets import scaling_config, sessions_per_replica
from autoscaling.simulator.signals import Autoscaler
from autoscaling.simulator.simulation import Setting
from autoscaling.simulator.workload import Visitors, Workload, draw
from model_core.stage import Stage

Policy = Literal["headrace", "ray", "lightx2v", "static"]
POLICIES: tuple[Policy, ...] = get_args(Policy)


@dataclass(frozen=True, slots=True)
class OurSettings:
    """What there is to tune of ours; see `autoscaling.scaling.ScalingConfig`. `floor` is the share of the usual sessions, as of Ray's."""

    floor: float = 2.0
    burst_k: float = 0.0
    burst_z: float = 2.33
    z: float = 1.28
    down_window_s: float = 180.0

    def config(self, x: Setting) -> ScalingConfig:
        """With the rest of what there is to know of the cluster."""
        burst_sessions = self.floor * usual(x)[Stage.DENOISER] * held(x)[Stage.DENOISER]
        return replace(
            scaling_config(x), burst_sessions=burst_sessions, burst_k=self.burst_k, burst_z=self.burst_z, z=self.z,
            down_window_s=self.down_window_s,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a search has found, or the defaults."""

    ours: OurSettings = field(default_factory=OurSettings)
    ray: RaySettings = field(default_factory=RaySettings)


def policy(name: str, x: Setting, workload: Workload, seed: int, tuned: Tuned) -> Autoscaler:
    """A fresh one for one run.

    Raises:
        ValueError: no such policy.
    """
    makers: dict[str, Callable[[], Autoscaler]] = {
        "headrace": lambda: Ours(tuned.ours.config(x)),
        "ray": lambda: _ray(tuned.ray, x),
        "lightx2v": lambda: Utilisation(Thresholds(most=most(x))),
        "static": lambda: Static(peak(x, draw(workload, seed, x.seconds))),
    }
    if name not in makers:
        raise ValueError(f"policy must be one of {', '.join(POLICIES)}; got {name}")
    return makers[cast("Policy", name)]()


def _ray(settings: RaySettings, x: Setting) -> Autoscaler:
    from deployments.scaling.simulated_ray import ray_default  # noqa: PLC0415 - Serve takes seconds to load, which other policies need not wait for

    return ray_default(settings, held(x), usual(x), most(x))


def held(x: Setting) -> dict[Stage, float]:
    """Requests in hand that a replica of each stage serves in real time; of prompts, one."""
    decode = math.floor(x.utilisation * x.times.chunk_s / x.times.decode_s)
    return {Stage.TEXT_ENCODER: 1.0, Stage.DENOISER: float(sessions_per_replica(x.times, x.utilisation)), Stage.DECODER: float(decode)}


def usual(x: Setting) -> dict[Stage, int]:
    """Replicas for the sessions that the setting is made for; it starts with a fifth more."""
    return {stage: max(1, round(number / 1.2)) for stage, number in x.prewarmed.items()}


def most(x: Setting) -> dict[Stage, int]:
    """Replicas that all nodes together hold of one stage."""
    h = x.hardware
    return {stage: h.max_nodes * h.node_units // h.units[stage] for stage in Stage}


def peak(x: Setting, visitors: Visitors) -> dict[Stage, int]:
    """For the most sessions that there will be at once if all are served, known in hindsight."""
    times = np.concatenate([visitors.at_s, visitors.at_s + visitors.length_s])
    change = np.concatenate([np.ones(visitors.at_s.size), -np.ones(visitors.at_s.size)])
    at_once = float(np.cumsum(change[np.argsort(times, kind="stable")]).max(initial=1.0))
    capacity = held(x)
    return {
        Stage.TEXT_ENCODER: 2 * x.prewarmed[Stage.TEXT_ENCODER],
        Stage.DENOISER: math.ceil(at_once / capacity[Stage.DENOISER]),
        Stage.DECODER: math.ceil(at_once / capacity[Stage.DECODER]),
    }
