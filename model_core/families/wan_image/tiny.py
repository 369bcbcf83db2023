"""Small checkpoints of Wan that begin with an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import WanImageToVideoPipeline
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

from model_core.families.common.tiny import byte_tokenizer, umt5
from model_core.families.wan.tiny import wan_schedule, wan_transformer, wan_vae


def make(name: str, folder: Path) -> None:
    pipeline = _MADE[name]()
    pipeline.save_pretrained(folder, safe_serialization=True)


def _single() -> Any:
    """As Wan 2.1 has it: an image encoder beside the latents that are given."""
    size = {"height": 28, "width": 28}
    eye = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, image_size=28, patch_size=14, projection_dim=16
    )
    return WanImageToVideoPipeline(
        byte_tokenizer(512), umt5(), wan_vae(), wan_schedule(),
        CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=size), CLIPVisionModel(eye),
        wan_transformer(in_channels=12, image_dim=32, added_kv_proj_dim=48),
    )  # fmt: skip


def _pair() -> Any:
    """As Wan 2.2 has it: no image encoder, and a transformer of its own for the steps with little noise."""
    first, second = (wan_transformer(in_channels=12) for _ in range(2))
    return WanImageToVideoPipeline(
        byte_tokenizer(512), umt5(), wan_vae(), wan_schedule(),
        transformer=first, transformer_2=second, boundary_ratio=0.9,
    )  # fmt: skip


_MADE = {"wan-image": _single, "wan-image-2.2": _pair}
