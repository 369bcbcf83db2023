"""Ray Serve's default autoscaling policy for the simulator: the code that Serve runs, on contexts made by hand, with time handed in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from ray.serve import autoscaling_policy
from ray.serve._private.common import DeploymentID
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from autoscaling.scaling import Stage
from autoscaling.simulator.signals import History, Target

if TYPE_CHECKING:
    from deployments.scaling.simulated import RaySettings

_APPLICATION = "headrace"


@dataclass(slots=True)
class RayDefault:
    """Each stage by itself, by ongoing requests: Serve's default, with the configuration that each has in `configs`.

    Attributes:
        push_s: how often handles tell the controller; `RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S`.
        interval_s: Serve decides ten times a second; delays are told in seconds, so that once a second decides the same.
    """

    configs: Mapping[Stage, AutoscalingConfig]
    push_s: float = 10.0
    interval_s: float = 1.0
    _states: dict[Stage, dict[str, Any]] = field(default_factory=dict)
    # Serve wraps the policy so.
    _policy: Any = field(
        default_factory=lambda: autoscaling_policy._apply_autoscaling_config(autoscaling_policy.default_autoscaling_policy)  # noqa: SLF001
    )

    def decide(self, now: float, history: History) -> Target:
        with patch.object(autoscaling_policy, "time", SimpleNamespace(time=lambda: now)):
            return Target({stage: self._decide(stage, now, history) for stage in Stage})

    def _decide(self, stage: Stage, now: float, history: History) -> int:
        config, replicas = self.configs[stage], history.samples[-1].observation.replicas[stage]
        number, self._states[stage] = self._policy(
            AutoscalingContext(
                deployment_id=DeploymentID(str(stage), _APPLICATION), deployment_name=str(stage), app_name=_APPLICATION,
                current_num_replicas=replicas.running, target_num_replicas=replicas.target, running_replicas=[],
                total_num_requests=history.pushed(now, self.push_s, config.look_back_period_s, stage), total_queued_requests=0.0,
                aggregated_metrics=None, raw_metrics=None, capacity_adjusted_min_replicas=config.min_replicas,
                capacity_adjusted_max_replicas=config.max_replicas, policy_state=self._states.get(stage, {}),
                last_scale_up_time=None, last_scale_down_time=None, current_time=now, config=config,
            )
        )  # fmt: skip
        return int(min(config.max_replicas, max(config.min_replicas, number)))


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
