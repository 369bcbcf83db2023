"""What may be changed while sessions run, in the front door's `user_config`.

Serve hashes an application's arguments and those of its scaling policy into the version of its code, and replaces every replica when they
change. `user_config` of a deployment is not in that hash: Serve tells the running replicas.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from autoscaling.admission.decide import OTHER_TENANT, Tenant
from deployments.config.problems import violations
from deployments.config.scaling import ScalingSettings, scaling_numbers

TenantName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]

log = logging.getLogger(__name__)


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TenantSettings(_Settings):
    """See `autoscaling.admission.decide.Tenant`; `max_sessions` is for each front door."""

    weight: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    max_sessions: Annotated[int, Field(ge=1)] | None = None


class FrontDoorTuning(_Settings):
    """The whole of `user_config`.

    Attributes:
        scaling: of the policy that sizes the stages.
        tenants: by the name that callers give in the metadata `x-headrace-tenant`; `default` is for those that give none.
    """

    scaling: ScalingSettings = ScalingSettings()
    tenants: dict[TenantName, TenantSettings] = Field(default_factory=dict)

    @field_validator("tenants")
    @classmethod
    def _no_other(cls, tenants: dict[str, TenantSettings]) -> dict[str, TenantSettings]:
        if OTHER_TENANT in tenants:
            raise ValueError(f"{OTHER_TENANT!r} stands for all that are not listed, and cannot be listed")
        return tenants

    def terms(self) -> dict[str, Tenant]:
        """Of each tenant."""
        return {name: Tenant(t.weight, t.max_sessions) for name, t in self.tenants.items()}


def tuning(user_config: object) -> FrontDoorTuning:
    """From `user_config`.

    Raises:
        ValueError: every problem in one line, by field.
    """
    try:
        return FrontDoorTuning.model_validate(user_config)
    except ValidationError as error:
        problems = "; ".join(f"{v.field}: {v.description}" for v in violations("user_config", error, FrontDoorTuning))
        raise ValueError(problems) from None


class Tuned:
    """What a front door has been told last. It keeps the scaling settings as `numbers` for the policy, and hands the tenants on.

    Args:
        clock: seconds since the epoch.
        tenants: called with the terms of each tenant.
    """

    def __init__(self, clock: Callable[[], float], tenants: Callable[[dict[str, Tenant]], None]) -> None:
        self._clock = clock
        self._tenants = tenants
        self._told = False
        self.numbers = scaling_numbers(ScalingSettings(), clock())

    def take(self, user_config: object) -> None:
        """Go by these from now on. Later ones that are wrong are refused, and logged: for an error Serve would replace the replica.

        Raises:
            ValueError: the first one is wrong.
        """
        try:
            told = tuning(user_config)
        except ValueError as error:
            if not self._told:
                raise
            log.error("the new user_config is refused, the one before it stands: %s", error)  # noqa: TRY400 - the sentence says it all
            return
        self._told = True
        self.numbers = scaling_numbers(told.scaling, self._clock())
        self._tenants(told.terms())
