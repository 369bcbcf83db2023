"""Wan 2.1 and 2.2, text to video."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from model_core.errors import WeightsError
from model_core.families.checkpoints.checkpoint import INDEX, Checkpoint
from model_core.families.common.family import Family, Index, Kind, Tiny
from model_core.families.common.solvers import EITHER_SOLVERS, FLOW, FLOW_SOLVERS, SolvedBy
from model_core.families.common.text_encoders import UMT5
from model_core.families.wan.image_encoder import check_eye
from model_core.families.wan.names import hint
from model_core.families.wan.networks import WAN_TRANSFORMER, WAN_VAE

WAN_SOLVED = SolvedBy(predicts=FLOW, names=(*FLOW_SOLVERS, *EITHER_SOLVERS, "FlowMatchHeunDiscreteScheduler"))


def _version(kind: Kind, index: Index, _: Mapping[str, Any]) -> Kind:
    if index.get("expand_timesteps"):  # Wan 2.2 TI2V 5B
        return replace(kind, fps=24, frames=121, height=704, width=1280)
    return kind


def check_pair(checkpoint: Checkpoint) -> None:
    """Check that Wan 2.2's second transformer and the time at which it takes over are both there, or neither is.

    Raises:
        WeightsError: one is missing.
    """
    boundary, second = checkpoint.index().get("boundary_ratio"), checkpoint.names("transformer_2")
    if boundary is not None and not (isinstance(boundary, int | float) and 0 <= boundary <= 1):
        raise WeightsError(f"boundary_ratio in {INDEX} must be from 0 to 1; got {boundary!r}")
    if boundary is not None and not second:
        raise WeightsError(f"{INDEX} has boundary_ratio {boundary:g}, but names no transformer_2 to take over there: one of two is missing")
    if second and boundary is None:
        raise WeightsError(f"{INDEX} names transformer_2, but boundary_ratio does not say when it takes over; got null")


FAMILY = Family(
    name="wan",
    package=__package__,
    kind=Kind(
        description="Wan text-to-video: a clip made at once.", pipelines=("WanPipeline",),
        fps=16, frames=81, steps=50, guidance=5.0, max_tokens=512, version=_version,
        text=UMT5, vae=WAN_VAE, transformer=WAN_TRANSFORMER, taehv=True, solved=WAN_SOLVED,
        optional={"transformer_2": WAN_TRANSFORMER}, settings=("boundary_ratio", "expand_timesteps"), flags=("expand_timesteps",),
        off=("boundary_ratio", "expand_timesteps"), hint=hint, check=check_pair, check_transformer=check_eye,
    ),
    tiny=(Tiny(name="wan"), Tiny(name="wan-2.2"), Tiny(name="wan-2.2-5b", height=64, width=96)),
)  # fmt: skip
