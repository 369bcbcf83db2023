"""The scaling policy's settings, how front doors tell them to the policy, and the policy's configuration out of them.

The policy runs in Serve's controller. Serve carries numbers by name from a replica to a policy and nothing else; the settings travel in
such a name, as JSON, and the number is the time at which they came. Why they do not stand in the policy's arguments is in
`deployments.config.tuning`.

Loaded in Serve's controller, so it stays light.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Self

from pydantic import Field, ValidationError, model_validator

from autoscaling.admission.brownout import BrownOutConfig
from autoscaling.reports import Terms
from autoscaling.scaling import NodeShape, ScalingConfig, StageLimits
from autoscaling.scaling.enhancing import EnhanceConfig
from deployments.config.problems import violations
from deployments.config.settings import Settings
from model_core.stage import Stage
from observability.catalogue import TTFF_OBJECTIVE_S

_NAME = "scaling "

log = logging.getLogger("ray.serve.headrace")


class PoolSettings(Settings):
    """A node type of the cluster, and how many there may be. Each of its nodes must offer one of a resource with the type's name."""

    name: Annotated[str, Field(min_length=1)]
    max_nodes: Annotated[int, Field(ge=0)]


class NodeSettings(Settings):
    """Accelerator nodes that Ray's autoscaler adds and removes; see `autoscaling.scaling.NodeShape`.

    Attributes:
        pools: best first; all of nodes alike.
        units: of the accelerator resource on one node.
        replica_units: of it for one replica of a stage, as `ray_actor_options` state it; a stage left out takes none.
        max_nodes: of all pools together; without it, what the pools may have.
        start_seconds: from the request of a node until it can start a replica.
        retry_seconds: how long a pool that the cloud had none of is passed over.
        cost_per_hour, budget_per_hour: in any currency; without both, `max_nodes` alone is the bound.
    """

    pools: Annotated[tuple[PoolSettings, ...], Field(min_length=1)]
    units: Annotated[int, Field(ge=1)]
    replica_units: dict[Stage, Annotated[int, Field(ge=0)]]
    max_nodes: Annotated[int, Field(ge=0)] | None = None
    start_seconds: Annotated[float, Field(ge=0)] = 160.0
    retry_seconds: Annotated[float, Field(gt=0)] = 300.0
    cost_per_hour: Annotated[float, Field(gt=0)] | None = None
    budget_per_hour: Annotated[float, Field(gt=0)] | None = None

    def shape(self) -> NodeShape:
        room = sum(pool.max_nodes for pool in self.pools)
        most = room if self.max_nodes is None else min(room, self.max_nodes)
        return NodeShape(self.units, most, self.start_seconds, self.cost_per_hour or 0.0, self.budget_per_hour or math.inf)

    @model_validator(mode="after")
    def _replicas_fit(self) -> Self:
        for stage, units in self.replica_units.items():
            if units > self.units:
                raise ValueError(f"replica_units.{stage} must be at most the {self.units} units of a node; got {units}")
        return self


class ScalingSettings(Settings):
    """What `deployments.scaling.policy:PipelinePolicy` goes by; see `autoscaling.scaling.ScalingConfig`.

    What the stages can do, the length of a chunk and the levels of brown-out are not set here: the replicas and the front doors tell.

    Attributes:
        interval_seconds: between two decisions.
        nodes: left out where no nodes are to be asked for.
    """

    z: Annotated[float, Field(ge=0, le=6)] = 1.28
    burst_z: Annotated[float, Field(ge=0, le=6)] = 3.0
    burst_k: Annotated[float, Field(ge=0, le=100)] = 2.0
    burst_sessions: Annotated[float, Field(ge=0)] = 0.0
    late_share: Annotated[float, Field(ge=0, le=1)] = 0.001
    replica_start_seconds: Annotated[float, Field(ge=0)] = 40.0
    fast_window_seconds: Annotated[float, Field(gt=0)] = 20.0
    stable_window_seconds: Annotated[float, Field(gt=0)] = 180.0
    panic_ratio: Annotated[float, Field(gt=1)] = 1.3
    panic_hold_seconds: Annotated[float, Field(ge=0)] = 60.0
    down_window_seconds: Annotated[float, Field(ge=0)] = 180.0
    zero_after_seconds: Annotated[float, Field(ge=0)] = 300.0
    session_seconds: Annotated[float, Field(gt=0)] = 60.0
    interval_seconds: Annotated[float, Field(ge=0.1)] = 2.0
    fill_nodes: bool = True
    nodes: NodeSettings | None = None

    @model_validator(mode="after")
    def _windows(self) -> Self:
        if self.stable_window_seconds < self.fast_window_seconds:
            given = f"{self.stable_window_seconds:g}"
            raise ValueError(f"stable_window_seconds must be at least fast_window_seconds = {self.fast_window_seconds:g}; got {given}")
        return self

    def config(self, terms: Terms, limits: Mapping[Stage, tuple[int, int]]) -> ScalingConfig:
        """With what the front door tells, and each stage's least and most replicas.

        Raises:
            ValueError: the least do not fit the nodes.
        """
        units: Mapping[Stage, int] = {} if self.nodes is None else self.nodes.replica_units
        return ScalingConfig(
            chunk_s=terms.chunk_s, steps=terms.steps, utilisation=terms.utilisation, brownout=BrownOutConfig(terms.tiers),
            limits={stage: StageLimits(least, most, units.get(stage, 0)) for stage, (least, most) in limits.items()},
            nodes=None if self.nodes is None else self.nodes.shape(), decode_slots=terms.decode_slots,
            ttff_s=TTFF_OBJECTIVE_S, late_share=self.late_share, z=self.z, burst_z=self.burst_z,
            burst_k=self.burst_k, burst_sessions=self.burst_sessions,
            replica_start_s=self.replica_start_seconds,
            fast_window_s=self.fast_window_seconds, stable_window_s=self.stable_window_seconds,
            panic_ratio=self.panic_ratio, panic_hold_s=self.panic_hold_seconds,
            down_window_s=self.down_window_seconds, zero_after_s=self.zero_after_seconds,
            prior_session_s=self.session_seconds, fill_nodes=self.fill_nodes,
        )  # fmt: skip


def enhancing(settings: ScalingSettings, terms: Terms, least: int, most: int) -> EnhanceConfig:
    """As `ScalingSettings.config`, for the enhance stage."""
    return EnhanceConfig(
        budget_s=terms.utilisation * terms.chunk_s, slots=terms.enhance_slots, least=least, most=most,
        down_window_s=settings.down_window_seconds, zero_after_s=settings.zero_after_seconds,
    )  # fmt: skip


def scaling_numbers(settings: ScalingSettings, since: float) -> dict[str, float]:
    """`settings` as a number that a replica exports; `since` is when they came, in seconds since the epoch."""
    return {_NAME + settings.model_dump_json(exclude_unset=True): since}


def newest_settings(replicas: Iterable[Mapping[str, float]]) -> ScalingSettings | None:
    """The settings that came last, of those that `replicas` told; None if none of them told any that can be read."""
    stamped = [(since, name.removeprefix(_NAME)) for numbers in replicas for name, since in numbers.items() if name.startswith(_NAME)]
    for _, settings in sorted(stamped, reverse=True):
        try:
            return ScalingSettings.model_validate_json(settings)
        except ValidationError as error:  # of a replica of another version
            log.warning("headrace scaling: settings that cannot be read are left out: %s", violations("scaling", error, ScalingSettings))
    return None
