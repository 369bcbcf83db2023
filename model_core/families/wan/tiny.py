"""Small checkpoints of Wan, and their parts, which other families share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel

from model_core.families.common.tiny import TEXT_WIDTH, byte_tokenizer, umt5


def make(name: str, folder: Path) -> None:
    pipeline = _MADE[name]()
    pipeline.save_pretrained(folder, safe_serialization=True)


def wan_vae() -> Any:
    return AutoencoderKLWan(
        base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        latents_mean=[-0.5, 0.1, 0.4, -0.2], latents_std=[1.5, 1.2, 1.9, 1.1],
    )  # fmt: skip


def wan_transformer(**more: Any) -> Any:
    settings = {
        "patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 24, "in_channels": 4, "out_channels": 4,
        "text_dim": TEXT_WIDTH, "freq_dim": 32, "ffn_dim": 64, "num_layers": 2, "rope_max_seq_len": 64,
    } | more  # fmt: skip
    return WanTransformer3DModel(**settings)


def wan_schedule() -> Any:
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, num_train_timesteps=1000)


def wan(boundary_ratio: float | None = None) -> Any:
    parts = [wan_transformer(), None if boundary_ratio is None else wan_transformer()]
    return WanPipeline(byte_tokenizer(512), umt5(), wan_vae(), wan_schedule(), *parts, boundary_ratio=boundary_ratio)


def _wan_5b() -> Any:
    """As Wan 2.2 TI2V has it: an autoencoder of factor 16, and a time for each token."""
    vae = AutoencoderKLWan(
        base_dim=8, decoder_base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        is_residual=True, patch_size=2, in_channels=12, out_channels=12, scale_factor_spatial=16, scale_factor_temporal=4,
        latents_mean=[-0.5, 0.1, 0.4, -0.2], latents_std=[1.5, 1.2, 1.9, 1.1],
    )  # fmt: skip
    return WanPipeline(byte_tokenizer(512), umt5(), vae, wan_schedule(), wan_transformer(), expand_timesteps=True)


_MADE = {"wan": wan, "wan-2.2": lambda: wan(boundary_ratio=0.875), "wan-2.2-5b": _wan_5b}
