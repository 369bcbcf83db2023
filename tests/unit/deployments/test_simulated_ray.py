"""The simulator's composition of Ray Serve's policy against the wrapped policy that Serve's controller runs."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve import autoscaling_policy
from ray.serve._private.common import DeploymentID
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from deployments.scaling.simulated_ray import serve_decides


def context(now: float, running: int, target: int, requests: float, config: AutoscalingConfig, state: dict[str, Any]) -> AutoscalingContext:
    return AutoscalingContext(
        deployment_id=DeploymentID("Denoiser", "headrace"), deployment_name="Denoiser", app_name="headrace",
        current_num_replicas=running, target_num_replicas=target, running_replicas=[], total_num_requests=requests,
        total_queued_requests=0.0, aggregated_metrics=None, raw_metrics=None, capacity_adjusted_min_replicas=0,
        capacity_adjusted_max_replicas=16, policy_state=dict(state), last_scale_up_time=None, last_scale_down_time=None,
        current_time=now, config=config,
    )  # fmt: skip


def test_the_composition_decides_what_serve_s_wrapped_policy_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk of an hour through crowds, quiet, and no replica at all; the clock is the one thing that is put in Serve's place."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(autoscaling_policy, "time", SimpleNamespace(time=lambda: clock.now))
    wrapped = autoscaling_policy._apply_autoscaling_config(autoscaling_policy.default_autoscaling_policy)  # noqa: SLF001
    config = AutoscalingConfig(
        min_replicas=0, max_replicas=16, initial_replicas=None, target_ongoing_requests=4, upscale_delay_s=3, downscale_delay_s=9
    )
    rng, requests, running, target = random.Random(1), 0.0, 1, 1
    serve_state: dict[str, Any] = {}
    our_state: dict[str, Any] = {}
    seen, cold_starts = set(), 0
    for clock.now in (float(second) for second in range(3600)):
        requests = max(0.0, requests + rng.choice((-6.0, -1.0, 0.0, 0.0, 1.0, 5.0))) if clock.now % 600 < 500 else 0.0
        theirs, serve_state = wrapped(context(clock.now, running, target, requests, config, serve_state))
        ours, our_state = serve_decides(context(clock.now, running, target, requests, config, our_state), clock.now)
        assert (ours, our_state) == (theirs, serve_state)
        cold_starts += running == 0 and requests > 0
        seen.add((ours > target) - (ours < target))
        running, target = target, min(16, max(0, ours))
    assert seen == {-1, 0, 1}
    assert cold_starts
