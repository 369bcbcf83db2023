"""Plays one burst to a real cluster under two policies, Ray's default and ours: `python -m bench.scaling.burst`.

    stages      the real model, each denoise step stretched to a set time by sleep (`bench.kit.timed`): replicas add capacity on few cores
    trace       Poisson arrivals with a burst in the middle, a fixed seed; the refused do not come back
    Ray         its default policy with its default delays, and as target the sessions that a replica holds by its own measurement
    ours        the policy of serve.yaml; admission, brown-out, routing, hand-over, least and most replicas are the same for both

Rounds alternate between the two. The JSON keeps arrivals, first frames, chunk times, replica counts and the measured profile, for a replay.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from autoscaling.capacity.estimate import DecodeReading, TextReading
from autoscaling.reports import ReplicaReport
from bench.kit.load import Arrival, Heard, Mix, burst, offer
from bench.kit.tally import lateness, quantile
from bench.kit.timed import BASE_S, ROW_S
from bench.kit.wires import GrpcWire
from deployments.cluster.local import ROOT, Overrides, start_local
from deployments.config.names import APP_NAME, STAGE_DEPLOYMENTS
from deployments.links.remote import reports
from headrace.client import HeadraceClient
from model_core.stage import Stage
from model_core.statistics import ForwardProfile

FPS = 8
LEAD_S, SILENCE_S, GRACE_S = 1.0, 30.0, 60.0
SESSIONS = 4  # that a denoiser of `bench.kit.timed` holds at full quality
# A replica's start costs some ten seconds of a core: more than two of a stage would take the cores from those that serve.
MOST = {"TextEncoder": 1, "Denoiser": 2, "Decoder": 1, "FrontDoor": 1}
POLICIES = ("ray", "headrace")
_LOOK_EVERY_S = 0.5
# A replica that is being started or stopped takes its place, too.
_STARTING = "STARTING"
_PRESENT = (_STARTING, "RUNNING", "STOPPING", "UPDATING", "RECOVERING")

Counts = list[tuple[float, dict[str, int], dict[str, int]]]  # seconds; replicas that take their place; those of them that still start


def trace(a: argparse.Namespace) -> list[Arrival]:
    """A fifth of the time, from two fifths on, is the burst."""
    return burst(a.seed, a.seconds, a.rate, a.burst_rate, 0.6 * a.seconds, 0.2 * a.seconds, Mix(mean_s=a.mean))


def overrides(policy: str) -> Overrides:
    quick = {"upscale_delay_s": 0, "downscale_delay_s": 0, "metrics_interval_s": 2, "look_back_period_s": 10}
    own = {"target_ongoing_requests": SESSIONS}
    blocks = {
        name: {
            "autoscaling_config": {"min_replicas": 1, "max_replicas": most, **(quick if policy == "headrace" else own)},
            "ray_actor_options": {"num_cpus": 0.05},
        }
        for name, most in MOST.items()
    }
    args = {"stages": "bench.kit.timed", "fps": FPS, "front_door": {"max_sessions": 64}}
    return Overrides(
        grpc_port=0, metrics_port=0, args=args, deployments=blocks, env={"PYTHONPATH": str(ROOT)},
        scaling={} if policy == "headrace" else None,
    )  # fmt: skip


async def watched(counts: Counts, started: float) -> None:
    """Note replicas of each deployment until cancelled."""
    while True:
        status = await asyncio.to_thread(serve.status)
        found = status.applications[APP_NAME].deployments
        states = {name: {str(state): n for state, n in found[name].replica_states.items()} for name in STAGE_DEPLOYMENTS.values()}
        now = {name: sum(states[name].get(state, 0) for state in _PRESENT) for name in states}
        starting = {name: states[name].get(_STARTING, 0) for name in states}
        counts.append((round(time.monotonic() - started, 2), now, starting))
        await asyncio.sleep(_LOOK_EVERY_S)


async def play(address: str, visits: Sequence[Arrival]) -> tuple[list[Heard], Counts]:
    """The trace, and the replicas meanwhile."""
    counts: Counts = []
    async with HeadraceClient(address) as client:
        watching = asyncio.create_task(watched(counts, time.monotonic()))
        try:
            return await offer(visits, GrpcWire(client, LEAD_S, SILENCE_S), GRACE_S), counts
        finally:
            if not watching.cancel():
                watching.result()  # it had stopped before, which it should not


@dataclass(frozen=True, slots=True)
class Measurements:
    """What replicas have measured of themselves: the denoiser's profile; prompts and chunks, and the seconds that these took."""

    profile: ForwardProfile
    prompts: int
    encoding_s: float
    chunks: int
    decoding_s: float

    @classmethod
    def parse(cls, recorded: Mapping[str, Any]) -> Measurements:
        """From what `dataclasses.asdict` made, by way of JSON."""
        profile = ForwardProfile(**{name: tuple(values) for name, values in recorded["profile"].items()})
        return cls(**{**recorded, "profile": profile})


async def measured() -> Measurements:
    """By one replica of each stage."""

    async def one(stage: Stage) -> ReplicaReport:
        handle: DeploymentHandle[Any] = serve.get_deployment_handle(STAGE_DEPLOYMENTS[stage], APP_NAME)
        try:
            return (await reports(handle, ReplicaReport, SILENCE_S))[0]
        finally:
            handle.shutdown()

    text, decode = TextReading.of(await one(Stage.TEXT_ENCODER)), DecodeReading.of(await one(Stage.DECODER))
    denoiser = (await one(Stage.DENOISER)).denoiser
    profile = ForwardProfile() if denoiser is None else denoiser.profile
    return Measurements(profile, int(text.prompts), text.busy_s, int(decode.chunks), decode.busy_s)


def replica_seconds(counts: Counts) -> dict[str, float]:
    """Of each deployment, over the whole run, those that start or stop among them."""
    spent = dict.fromkeys(STAGE_DEPLOYMENTS.values(), 0.0)
    for (at, now, _), (until, _, _) in itertools.pairwise(counts):
        for name, number in now.items():
            spent[name] += number * (until - at)
    return {name: round(seconds, 1) for name, seconds in spent.items()}


def summed(runs: Sequence[Heard], counts: Counts) -> dict[str, object]:
    played = [heard for heard in runs if heard.chunks]
    first = [heard.chunks[0].at_s for heard in played]
    late = [value > 0 for heard in played for value in lateness(heard, FPS)]
    ends = ("completed", "refused")
    return {
        "offered": len(runs), "refused": sum(heard.result == "refused" for heard in runs),
        "killed": sum(heard.result not in ends for heard in runs), "waited": sum(heard.waited for heard in runs),
        "ttff_p50_s": round(quantile(first, 0.5), 3), "ttff_p99_s": round(quantile(first, 0.99), 3),
        "first_within_1_s_share_of_offered": round(sum(value <= 1 for value in first) / max(1, len(runs)), 4),
        "chunks": len(late), "late_chunks": sum(late), "degraded_chunks": sum(chunk.degraded for heard in played for chunk in heard.chunks),
        **{f"{name}_replica_s": seconds for name, seconds in replica_seconds(counts).items()},
        "load_average": round(os.getloadavg()[0], 2),
    }  # fmt: skip


def run(policy: str, visits: Sequence[Arrival]) -> dict[str, object]:
    """One cluster, one trace."""
    with start_local(None, overrides(policy)) as app:
        heard, counts = asyncio.run(play(app.address, visits))
        found = asyncio.run(measured())
    sessions = [
        {
            "at_s": h.arrival.at_s, "seconds": h.arrival.seconds, "result": h.result, "waited": h.waited,
            "chunks": [(round(c.at_s, 4), c.first_frame, c.frames, c.degraded) for c in h.chunks],
        }
        for h in heard
    ]  # fmt: skip
    return {"policy": policy, "summary": summed(heard, counts), "replicas": counts, "sessions": sessions, "measured": asdict(found)}


def table(rounds: Sequence[dict[str, Any]]) -> str:
    """The rounds side by side."""
    heads = [f"{found['policy']} {1 + n // len(POLICIES)}" for n, found in enumerate(rounds)]
    rows = [("", *heads)] + [(name, *(str(found["summary"][name]) for found in rounds)) for name in rounds[0]["summary"]]
    return "\n".join(f"{row[0]:36}" + "".join(f"{cell:>14}" for cell in row[1:]) for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=180, help="length of the trace")
    parser.add_argument("--rate", type=float, default=0.1, help="arrivals a second")
    parser.add_argument("--burst-rate", type=float, default=0.5, help="in the burst")
    parser.add_argument("--mean", type=float, default=20.0, help="mean length of a session, in seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where to write everything that was seen")
    a = parser.parse_args()
    visits = trace(a)
    step = f"{1000 * BASE_S:g} ms + {1000 * ROW_S:g} ms a row"
    print(f"{len(visits)} sessions in {a.seconds:g} s; denoise steps of {step}, mostly slept; {FPS} frames/s", flush=True)
    rounds = [run(policy, visits) for _ in range(a.rounds) for policy in POLICIES]
    print(table(rounds))
    if a.json:
        settings = {name: value for name, value in vars(a).items() if name != "json"}
        stages = {"base_s": BASE_S, "row_s": ROW_S, "fps": FPS, "most": MOST}
        found = {"settings": settings, "stages": stages, "arrivals": [asdict(v) for v in visits], "rounds": rounds}
        a.json.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
