"""Wan 2.1 and 2.2, image to video."""

from __future__ import annotations

from model_core.errors import WeightsError
from model_core.families.checkpoints.checkpoint import Checkpoint
from model_core.families.common.family import Family, Kind, Tiny
from model_core.families.common.text_encoders import UMT5
from model_core.families.wan.family import WAN_SOLVED, check_pair
from model_core.families.wan.image_encoder import CLIP, check_eye
from model_core.families.wan.networks import WAN_TRANSFORMER, WAN_VAE


def _seen(channels: int, stretch: int) -> int:
    """The latents, those of the image, and which frames it stands for."""
    return 2 * channels + stretch


def _check(checkpoint: Checkpoint) -> None:
    if checkpoint.index().get("expand_timesteps"):
        raise WeightsError(f"{checkpoint.folder} gives each token a timestep (Wan 2.2 TI2V), which is not served from an image")
    check_pair(checkpoint)


FAMILY = Family(
    name="wan-image",
    package=__package__,
    kind=Kind(
        description="Wan image-to-video: a clip made at once, which begins with a given image.", pipelines=("WanImageToVideoPipeline",),
        fps=16, frames=81, steps=50, guidance=5.0, max_tokens=512, media=("image",), needs_media=True, seen=_seen,
        text=UMT5, vae=WAN_VAE, transformer=WAN_TRANSFORMER, taehv=True, solved=WAN_SOLVED,
        optional={"transformer_2": WAN_TRANSFORMER, "image_encoder": CLIP, "image_processor": None},
        settings=("boundary_ratio", "expand_timesteps"), flags=("expand_timesteps",), check=_check, check_transformer=check_eye,
    ),
    tiny=(Tiny(name="wan-image"), Tiny(name="wan-image-2.2")),
)  # fmt: skip
