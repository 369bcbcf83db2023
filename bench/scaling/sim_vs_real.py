"""Replays in the simulator what `bench.scaling.burst --json` has recorded: `python -m bench.scaling.sim_vs_real RECORDED.json`.

The same arrivals, what replicas measured of themselves (the denoiser's profile, seconds a prompt and a chunk), how long replicas took to
start, the same policy with the same arguments, in the fine data plane. One number is fitted: what a first frame takes beyond the stages'
work, from the fastest one. What the machine's other work does to the cluster is not in the simulator, and shows in the differences.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from ray.serve.config import AutoscalingConfig

from autoscaling.capacity.profile import CapacityProfile
from autoscaling.reports import Terms
from autoscaling.simulator.cluster import Hardware
from autoscaling.simulator.fine import FinePlane
from autoscaling.simulator.plane import StageTimes
from autoscaling.simulator.policies import Ours
from autoscaling.simulator.signals import Autoscaler
from autoscaling.simulator.simulation import Setting, Simulation
from autoscaling.simulator.workload import Lengths, Workload
from bench.kit.tally import quantile
from bench.scaling.burst import Measurements
from deployments.cluster.local import STAGED_CONFIG, Overrides, load
from deployments.config.application import AppConfig
from deployments.config.names import FRONT_DOOR
from deployments.config.tuning import tuning
from deployments.scaling.simulated_ray import RayDefault
from model_core.stage import Stage

NAMES = {Stage.TEXT_ENCODER: "TextEncoder", Stage.DENOISER: "Denoiser", Stage.DECODER: "Decoder"}
AIMS = {"p50": 10.0, "p99": 20.0}
HOP_S = 0.003
_GRACE_S = 60.0
# Where no replica was started, and so none could be timed.
_START_S = 10.0

Figures = dict[str, float]


def start_s(recorded: Mapping[str, Any]) -> float:
    """Seconds from a replica's request to its running, on average over those that were started."""
    waited = started = 0.0
    for (at, before, starting), (until, now, _) in itertools.pairwise(recorded["replicas"]):
        waited += sum(starting.values()) * (until - at)
        started += sum(max(0, now[name] - before[name]) for name in now)
    return waited / started if started else _START_S


def setting(found: Mapping[str, Any], recorded: Mapping[str, Any]) -> Setting:
    """Of the round `recorded` of the file `found`."""
    app, fps, measured = AppConfig(), found["stages"]["fps"], Measurements.parse(recorded["measured"])
    encode_s, decode_s = measured.encoding_s / max(1, measured.prompts), measured.decoding_s / max(1, measured.chunks)
    if not measured.profile.buckets:
        raise ValueError("the recording must have the denoiser's profile; its buckets are empty")
    profile = CapacityProfile(measured.profile.buckets, measured.profile.step_s, measured.profile.commit_s)
    frames = next(chunk[2] for session in recorded["sessions"] for chunk in session["chunks"])
    times = StageTimes(
        profile=profile, encode_s=encode_s, decode_s=decode_s, hop_s=HOP_S, chunk_s=frames / fps, slots=app.engine.slots,
        max_lead_chunks=app.engine.max_lead_chunks, noise=0.02, open_s=0.0,
    )  # fmt: skip
    first = [session["chunks"][0] for session in recorded["sessions"] if session["chunks"]]
    fastest = min((at for at, _, _, degraded in first if not degraded), default=0.0)  # of all steps, as the work below
    work = encode_s + times.steps * profile.step_s[0] + decode_s + 3 * HOP_S
    times = replace(times, open_s=max(0.0, fastest - work))
    starts = dict.fromkeys(Stage, start_s(recorded))
    return Setting(
        times=times, hardware=Hardware(replica_start_s=starts), admission=app.admission.policy(app.preset()),
        utilisation=app.admission.utilisation, seconds=found["settings"]["seconds"] + _GRACE_S,
        warm_s=0.0, bin_s=1.0, fine=True,
    )  # fmt: skip


def policy(name: str, x: Setting, most: Mapping[str, int], sessions: int) -> Autoscaler:
    """As `bench.scaling.burst` configures it."""
    if name == "ray":
        configs = {
            stage: AutoscalingConfig(min_replicas=1, max_replicas=most[NAMES[stage]], target_ongoing_requests=sessions) for stage in Stage
        }
        return RayDefault(configs)
    document, _ = load(STAGED_CONFIG, Overrides())
    blocks = {block["name"]: block for block in document["applications"][0]["deployments"]}
    limits = {stage: (1, most[NAMES[stage]]) for stage in Stage}
    terms = Terms(x.times.chunk_s, x.times.steps, x.utilisation, x.admission.brownout.tiers)
    return Ours(tuning(blocks[FRONT_DOOR]["user_config"]).scaling.config(terms, limits))


def figures(first: list[float], gaps: list[float], replica_s: Figures) -> Figures:
    """In seconds: first frames, times between two chunks of a session, and replicas of each stage."""
    return {
        "ttff p50": quantile(first, 0.5), "ttff p99": quantile(first, 0.99), "chunk gap p50": quantile(gaps, 0.5),
        "chunk gap p99": quantile(gaps, 0.99), **replica_s,
    }  # fmt: skip


def serving(seconds: Mapping[Stage, float]) -> Figures:
    """Replica-seconds, without those of replicas that still start."""
    return {f"{stage} replica-s": value for stage, value in seconds.items()}


def real(recorded: Mapping[str, Any]) -> Figures:
    """What the recording has."""
    played = [[chunk[0] for chunk in session["chunks"]] for session in recorded["sessions"] if session["chunks"]]
    gaps = [b - a for times in played for a, b in itertools.pairwise(times)]
    spent = dict.fromkeys(Stage, 0.0)
    for (at, now, starting), (until, _, _) in itertools.pairwise(recorded["replicas"]):
        for stage, name in NAMES.items():
            spent[stage] += (now[name] - starting[name]) * (until - at)
    return figures([times[0] for times in played], gaps, serving(spent))


def simulated(found: Mapping[str, Any], recorded: Mapping[str, Any]) -> Figures:
    """The same of the simulator."""
    x = setting(found, recorded)
    trace = tuple((visit["at_s"], visit["seconds"]) for visit in found["arrivals"])
    workload = Workload("recorded", None, Lengths(1.0), switch_s=0.0, patience_s=math.inf, retries=0, trace=trace)
    target = max(1, int(x.times.profile.capacity(x.times.steps, x.utilisation * x.times.chunk_s, 1.0, x.times.slots)))
    simulation = Simulation(x, workload, policy(recorded["policy"], x, found["stages"]["most"], target), 1)
    simulation.run()
    plane = cast("FinePlane", simulation.plane)
    gaps = [b - a for i in range(len(trace)) for a, b in itertools.pairwise(plane.sent(i))]
    first = simulation.ttff_s()
    until = recorded["replicas"][-1][0]
    seconds = sum(at < until for at in simulation.timeline.at_s)
    spent = {stage: sum(simulation.timeline.values[str(stage)][:seconds]) for stage in Stage}
    return figures(first[np.isfinite(first)].tolist(), gaps, serving(spent))


def table(name: str, measured: Figures, modelled: Figures) -> str:
    """Side by side, with the difference in percent and whether it is within the aim."""
    lines = [f"{name:28}{'real':>12}{'simulated':>12}{'difference':>12}"]
    for key, value in measured.items():
        percent = 100 * (modelled[key] - value) / value if value else math.nan
        aim = AIMS.get(key.split()[-1])
        verdict = "" if aim is None else f"   within {aim:g} %" if abs(percent) <= aim else f"   BEYOND {aim:g} %"
        lines.append(f"{key:28}{value:12.3f}{modelled[key]:12.3f}{percent:11.1f}%{verdict}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recorded", type=Path, help="written by bench.scaling.burst --json")
    parser.add_argument("--json", type=Path)
    a = parser.parse_args()
    found = json.loads(a.recorded.read_text())
    out = []
    for recorded in found["rounds"]:
        measured, modelled = real(recorded), simulated(found, recorded)
        print(table(recorded["policy"], measured, modelled) + "\n")
        out.append({"policy": recorded["policy"], "real": measured, "simulated": modelled})
    if a.json:
        a.json.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
