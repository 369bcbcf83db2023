"""What serve.yaml says that a change of a key restarts is what Ray Serve's own code does."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from ray.serve._private.config import DeploymentConfig
from ray.serve._private.deploy_utils import get_app_code_version
from ray.serve._private.version import DeploymentVersion
from ray.serve.schema import ServeDeploySchema

from deployments.cluster.local import STAGED_CONFIG

ALL = frozenset({"TextEncoder", "Denoiser", "Decoder", "FrontDoor"})
_NO_PART_OF_THE_CONFIG = {"name", "ray_actor_options", "max_replicas_per_node"}


def replaced(before: Mapping[str, Any], after: Mapping[str, Any]) -> frozenset[str]:
    """The deployments whose replicas Serve replaces when it is told `after`."""
    old, new = versions(before), versions(after)
    return frozenset(name for name in old if old[name].requires_actor_restart(new[name]))


def versions(document: Mapping[str, Any]) -> dict[str, DeploymentVersion]:
    (app,) = ServeDeploySchema.model_validate(document).applications
    code = get_app_code_version(app)
    found = {}
    for block in document["applications"][0]["deployments"]:
        config = DeploymentConfig(**{key: value for key, value in block.items() if key not in _NO_PART_OF_THE_CONFIG})
        most = block.get("max_replicas_per_node")
        found[block["name"]] = DeploymentVersion(code, config, block["ray_actor_options"], max_replicas_per_node=most)
    return found


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("logging_config", "log_level"), "DEBUG", frozenset()),
        (("applications", 0, "runtime_env", "env_vars", "MORE"), "1", ALL),
        (("applications", 0, "autoscaling_policy", "policy_kwargs"), {"metrics_host": "0.0.0.0"}, ALL),  # noqa: S104 - nothing is bound
        (("applications", 0, "args", "front_door", "max_sessions"), 17, ALL),
        (("applications", 0, "deployments", 0, "ray_actor_options", "num_cpus"), 0.5, frozenset({"TextEncoder"})),
        (("applications", 0, "deployments", 3, "max_replicas_per_node"), 1, frozenset({"FrontDoor"})),
        (("applications", 0, "deployments", 1, "autoscaling_config", "max_replicas"), 9, frozenset()),
        (("applications", 0, "deployments", 1, "autoscaling_config", "downscale_delay_s"), 3, frozenset()),
        (("applications", 0, "deployments", 1, "autoscaling_config", "look_back_period_s"), 20, frozenset()),
        (("applications", 0, "deployments", 1, "autoscaling_config", "policy"), {"policy_kwargs": {"x": 1}}, ALL),
        (("applications", 0, "deployments", 1, "max_ongoing_requests"), 99, frozenset()),
        (("applications", 0, "deployments", 1, "health_check_period_s"), 3, frozenset()),
        (("applications", 0, "deployments", 1, "graceful_shutdown_timeout_s"), 33, frozenset()),
        (("applications", 0, "deployments", 1, "request_router_config"), {"request_routing_stats_period_s": 3}, ALL),
        (("applications", 0, "deployments", 3, "user_config", "scaling", "down_window_seconds"), 170, frozenset()),
        (("applications", 0, "deployments", 3, "user_config", "tenants", "studio"), {"weight": 2}, frozenset()),
        (("applications", 0, "deployments", 3, "user_config", "scaling", "nodes"), {"units": 4}, frozenset()),
    ],
)
def test_a_change_restarts_what_serve_yaml_says(path: tuple[str | int, ...], value: object, expected: frozenset[str]) -> None:
    before = yaml.safe_load(STAGED_CONFIG.read_text())
    after = copy.deepcopy(before)
    place = after
    for key in path[:-1]:
        place = place[key] if isinstance(key, int) else place.setdefault(key, {})
    assert place.get(path[-1]) != value
    place[path[-1]] = value
    assert replaced(before, after) == expected


def test_to_leave_out_or_name_the_scaling_of_a_deployment_restarts_all() -> None:
    named = yaml.safe_load(STAGED_CONFIG.read_text())
    bare = copy.deepcopy(named)
    del bare["applications"][0]["deployments"][1]["autoscaling_config"]
    assert replaced(bare, named) == ALL
    assert replaced(named, bare) == ALL


def test_nothing_that_is_to_be_tuned_is_an_argument_of_the_policy() -> None:
    (app,) = yaml.safe_load(STAGED_CONFIG.read_text())["applications"]
    assert app["autoscaling_policy"] == {"policy_function": "deployments.scaling.policy:PipelinePolicy"}
