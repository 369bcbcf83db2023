"""The part of the application's arguments that says who may run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from autoscaling.admission.brownout import BrownOutConfig, default_tiers
from autoscaling.admission.decide import AdmissionConfig
from deployments.config.settings import Settings
from model_core.config import ModelConfig


class AdmissionSettings(Settings):
    """Who may run; see `autoscaling.admission.decide.AdmissionConfig`.

    Attributes:
        mode: `measured`: what the stages can serve in real time, by their own measurements; `none`: everybody at once, for comparison.
        tiers: steps that paced sessions are lowered to under load, best first: below the model's own, and at least half of them. Empty for
            never. Without it, what `autoscaling.admission.brownout.default_tiers` says for the model.
        utilisation: share of each chunk's length that may go into making the chunks of all sessions; the rest is for what is not measured.
        max_waiting: places in line, for each front door.
        max_wait_seconds: a paced session that would have to wait longer is refused at once.
        dwell_seconds: shortest time between two steps of recovery.
        pause_seconds: how long a paused session keeps its slot. Then others may have it, and the session waits in line when it goes on.
        max_paused: sessions that may be paused for longer, for each front door. Beyond them, such a pause ends the session.
    """

    mode: Literal["measured", "none"] = "measured"
    tiers: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    utilisation: Annotated[float, Field(gt=0, le=1)] = 0.8
    max_waiting: Annotated[int, Field(ge=0)] = 64
    max_wait_seconds: Annotated[float, Field(ge=0)] = 10.0
    dwell_seconds: Annotated[float, Field(ge=0)] = 15.0
    pause_seconds: Annotated[float, Field(ge=0)] = 30.0
    max_paused: Annotated[int, Field(ge=0, le=100_000)] = 256

    @field_validator("tiers")
    @classmethod
    def _descending(cls, tiers: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if tiers is not None and list(tiers) != sorted(set(tiers), reverse=True):
            raise ValueError(f"must be a strictly descending list; got {list(tiers)}")
        return tiers

    def policy(self, model: ModelConfig) -> AdmissionConfig:
        """For sessions that ask for what a chunk costs; see `ModelConfig.work`. Tenants come later; see `deployments.config.tuning`."""
        measured = self.mode == "measured"
        tiers = default_tiers(model.num_steps, model.min_steps) if self.tiers is None else self.tiers
        return AdmissionConfig(
            brownout=BrownOutConfig(tuple(map(model.forwards, tiers)) if measured else (), self.dwell_seconds),
            max_waiting=self.max_waiting,
            max_wait_s=self.max_wait_seconds,
            default_steps=model.forwards(model.num_steps),
            hold_s=self.pause_seconds,
            max_aside=self.max_paused,
        )
