"""Settings that commands and benches share. Stage times are assumed unless a measured profile is given, and are labelled so."""

from __future__ import annotations

import math
from dataclasses import replace

from autoscaling.admission.brownout import BrownOutConfig
from autoscaling.admission.decide import AdmissionConfig
from autoscaling.capacity.profile import CapacityProfile
from autoscaling.scaling import NodeShape, ScalingConfig, StageLimits
from autoscaling.simulator.cluster import Hardware
from autoscaling.simulator.plane import StageTimes
from autoscaling.simulator.simulation import Setting
from model_core.stage import Stage


def assumed_profile() -> CapacityProfile:
    """20 ms and 6 ms for each row of the batch: the shape of a forward that batches well. Not measured on anything."""
    buckets = (1, 2, 4, 8)
    seconds = tuple(0.02 + 0.006 * b for b in buckets)
    return CapacityProfile(buckets, seconds, seconds)


def setting(sessions: float, seconds: float, warm_s: float, profile: CapacityProfile | None = None) -> Setting:
    """A cluster for about `sessions` sessions at once, with room on it for `sessions` from the start."""
    times = StageTimes(profile=profile or assumed_profile())
    held = sessions_per_replica(times, 0.8)
    decoded = 0.8 * times.chunk_s / times.decode_s
    prewarmed = {
        Stage.TEXT_ENCODER: max(1, math.ceil(sessions / 500)),
        Stage.DENOISER: max(1, math.ceil(1.2 * sessions / held)),
        Stage.DECODER: max(1, math.ceil(1.2 * sessions / decoded)),
    }
    hardware = Hardware(spread=True)  # Serve's default
    nodes = max(16, 8 * math.ceil(sum(n * hardware.units[s] for s, n in prewarmed.items()) / hardware.node_units))
    admission = AdmissionConfig(BrownOutConfig(), max_waiting=64, max_wait_s=10.0, default_steps=times.steps)
    return Setting(
        times=times, hardware=replace(hardware, max_nodes=nodes), admission=admission, seconds=seconds, warm_s=warm_s, prewarmed=prewarmed
    )


def sessions_per_replica(times: StageTimes, utilisation: float) -> int:
    """Of full quality, in real time."""
    return max(1, times.profile.capacity(times.steps, utilisation * times.chunk_s, 1.0, times.slots))


def scaling_config(x: Setting) -> ScalingConfig:
    """Ours, for that setting; times to start are those that the cluster has on average."""
    h = x.hardware
    limits = {s: StageLimits(1, h.max_nodes * h.node_units // h.units[s], h.units[s]) for s in Stage}
    return ScalingConfig(
        chunk_s=x.times.chunk_s, steps=x.times.steps, limits=limits, nodes=NodeShape(h.node_units, h.max_nodes, h.node_start_s),
        brownout=x.admission.brownout, utilisation=x.utilisation, ttff_s=x.ttff_s, replica_start_s=h.replica_start_s[Stage.DENOISER],
    )  # fmt: skip
