"""How many replicas of each stage, and how many nodes: one pure function over what the front doors and the replicas report.

    plan(observation, config, state, now) -> (Plan, State)

A controller on a cluster and a simulator call the same function; neither is known here.
"""

from autoscaling.scaling.planner import plan
from autoscaling.scaling.state import State
from autoscaling.scaling.types import (
    Cause,
    Demand,
    NodeShape,
    Observation,
    Plan,
    Reason,
    ScalingConfig,
    StageLimits,
    StageReplicas,
)

__all__ = [
    "Cause", "Demand", "NodeShape", "Observation", "Plan", "Reason", "ScalingConfig",
    "StageLimits", "StageReplicas", "State", "plan",
]  # fmt: skip
