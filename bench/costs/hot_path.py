"""What small things on the hot path cost, in processor time: `python -m bench.costs.hot_path` (`make costs`); exit code 1 beyond a bound.

Tests count calls, which no machine changes; here are the seconds that they stand for. The best of some rounds counts.

    counting    the metrics of one chunk: `SessionMeter.sent`, and a denoiser's forwards for it; less than a hundredth of its computation
    decision    one decision of the scaling policy in Serve's control loop, which it must not hold up
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry

from autoscaling.reports import ControlStatistics, FrontDoorReport, ReplicaReport, Terms, ViewerTotals, flatten
from deployments.config.names import FRONT_DOOR, STAGE_DEPLOYMENTS
from deployments.config.scaling import ScalingSettings, scaling_numbers
from deployments.scaling.policy import ClusterNodes, PolicyLoop
from deployments.scaling.report import PolicyReport
from model_core.events import Forward
from model_core.statistics import DenoiserStatistics
from model_core.types import Codec, FrameChunk
from observability.metrics import DenoiserMetrics, Metrics
from observability.session_meter import SessionMeter

BOUNDS_US = {"counting": 500.0, "decision": 5000.0}
ROUNDS = 5


def best_us(work: Callable[[int], None], times: int) -> float:
    """Of `work`, called with the numbers from 0 on."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        for n in range(times):
            work(n)
        best = min(best, (time.process_time() - started) / times)
    return 1e6 * best


def counting() -> Callable[[int], None]:
    meter = SessionMeter(Metrics(CollectorRegistry()).of("millrace-64"), "default", 24, paced=True)
    denoiser = DenoiserMetrics(CollectorRegistry())
    forwards = [*(Forward("step", 1, 1, 0.01, (0.2,)) for _ in range(4)), Forward("commit", 1, 1, 0.01)]

    def count(n: int) -> None:
        made = FrameChunk(n, 8 * n, 8, 8, 8, Codec.JPEG, (b"",) * 8, np.zeros((1, 1, 1, 1), np.float32), ())
        meter.sent(made, 1.0, 1.01, 0.0)
        for forward in forwards:
            denoiser.observe(forward)

    return count


def decision() -> Callable[[int], None]:
    loop = PolicyLoop(ClusterNodes(), PolicyReport(), time.perf_counter)
    admission = ControlStatistics(
        live=40, degraded=0, waiting=0, level=0, capacity=48, live_jobs=0, waiting_jobs=0, arrivals=40, departures=0
    )
    door = flatten(FrontDoorReport(admission, ViewerTotals(0, 0, 0, 0, 0), Terms(0.5, 4, 0.8, (3, 2))))
    door |= scaling_numbers(ScalingSettings(interval_seconds=0.1), 0.0)
    denoiser = flatten(ReplicaReport(1.0, denoiser=DenoiserStatistics(40, 0, 8, 0, 0, 0, 0, 0.0, 0.0)))
    told = {FRONT_DOOR: door, "Denoiser": denoiser}
    clock = [0.0]

    def decide(_: int) -> None:
        clock[0] += 1.0
        contexts: dict[str, Any] = {
            name: SimpleNamespace(
                raw_metrics={number: {"r": [SimpleNamespace(value=value)]} for number, value in told.get(name, {}).items()},
                current_time=clock[0], current_num_replicas=1, target_num_replicas=1, capacity_adjusted_min_replicas=1,
                capacity_adjusted_max_replicas=8,
            )
            for name in (FRONT_DOOR, *STAGE_DEPLOYMENTS.values())
        }  # fmt: skip
        loop.tick(contexts)

    return decide


def main() -> None:
    found = {"counting": best_us(counting(), 300), "decision": best_us(decision(), 100)}
    for name, cost in found.items():
        print(f"{name:10} {cost:8.0f} us of at most {BOUNDS_US[name]:.0f}")
    sys.exit(any(cost > BOUNDS_US[name] for name, cost in found.items()))


if __name__ == "__main__":
    main()
