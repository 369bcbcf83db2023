"""Ray Serve's default autoscaling policy for the simulator: Serve's own functions, on contexts made by hand, at a time that we pass in.

Serve wraps its policy in `_apply_autoscaling_config`, which reads the clock of the machine. `serve_decides` composes the same functions
in the same order, because the one of them that needs a time takes it as an argument. A test compares both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ray.serve import autoscaling_policy as serve
from ray.serve._private.common import DeploymentID
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from autoscaling.simulator.policies import RaySettings
from autoscaling.simulator.signals import History, Target
from model_core.stage import Stage

_APPLICATION = "headrace"


@dataclass(slots=True)
class RayDefault:
    """Serve's default policy: it sizes each stage by itself, by ongoing requests, with the stage's configuration in `configs`.

    Attributes:
        push_s: how often handles report to the controller; `RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S`.
        interval_s: time between decisions. Serve decides ten times a second; its delays are seconds, so once a second decides the same.
    """

    configs: Mapping[Stage, AutoscalingConfig]
    push_s: float = 10.0
    interval_s: float = 1.0
    _states: dict[Stage, dict[str, Any]] = field(default_factory=dict)

    def decide(self, now: float, history: History) -> Target:
        return Target({stage: self._decide(stage, now, history) for stage in Stage})

    def _decide(self, stage: Stage, now: float, history: History) -> int:
        config, replicas = self.configs[stage], history.samples[-1].observation.replicas[stage]
        number, self._states[stage] = serve_decides(
            AutoscalingContext(
                deployment_id=DeploymentID(str(stage), _APPLICATION), deployment_name=str(stage), app_name=_APPLICATION,
                current_num_replicas=replicas.running, target_num_replicas=replicas.target, running_replicas=[],
                total_num_requests=history.pushed(now, self.push_s, config.look_back_period_s, stage), total_queued_requests=0.0,
                aggregated_metrics=None, raw_metrics=None, capacity_adjusted_min_replicas=config.min_replicas,
                capacity_adjusted_max_replicas=config.max_replicas, policy_state=self._states.get(stage, {}),
                last_scale_up_time=None, last_scale_down_time=None, current_time=now, config=config,
            ),
            now,
        )  # fmt: skip
        return int(min(config.max_replicas, max(config.min_replicas, number)))


def serve_decides(context: AutoscalingContext, now: float) -> tuple[int, dict[str, Any]]:
    """Replicas and the policy's next state, as Serve's wrapped default policy returns them at `now`, in seconds."""
    config: Any = context.config  # declared optional, though Serve's policy needs it
    desired, _ = serve.default_autoscaling_policy(context)
    running, target = context.current_num_replicas, context.target_num_replicas
    if running == 0 and context.total_num_requests > 0:
        return int(desired), context.policy_state  # a cold start waits for nothing
    scaled = serve._apply_scaling_factors(desired, running, config)  # noqa: SLF001
    state = serve._extract_internal_policy_state(context.policy_state)  # noqa: SLF001
    if running == 0 and scaled > 0:
        return scaled, state
    number, state = serve._apply_delay_logic(max(0, scaled), target, config, state, _now=now)  # noqa: SLF001
    return number, state


def ray_default(settings: RaySettings, held: Mapping[Stage, float], usual: Mapping[Stage, int], most: Mapping[Stage, int]) -> RayDefault:
    """Serve's policy with these settings.

    Args:
        held: requests that a replica of each stage serves in real time.
        usual: replicas of each stage for the usual number of sessions.
        most: upper bounds.
    """
    configs = {
        stage: AutoscalingConfig(
            min_replicas=min(most[stage], max(1, round(settings.floor * usual[stage]))),
            initial_replicas=None,
            max_replicas=most[stage],
            target_ongoing_requests=max(0.1, settings.target * held[stage]),
            upscale_delay_s=settings.up_s,
            downscale_delay_s=settings.down_s,
            look_back_period_s=settings.look_back_s,
            metrics_interval_s=min(settings.push_s, settings.look_back_s),
        )
        for stage in Stage
    }
    return RayDefault(configs, settings.push_s)
