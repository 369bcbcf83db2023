"""The small checkpoint of LTX-Video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXPipeline, LTXVideoTransformer3DModel

from model_core.families.common.tiny import TEXT_WIDTH, byte_tokenizer, t5


def make(_: str, folder: Path) -> None:
    schedule = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, shift_terminal=0.1)
    vae: Any = AutoencoderKLLTXVideo(
        latent_channels=8, block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1), decoder_layers_per_block=(1, 1, 1, 1, 1),
        decoder_inject_noise=(True, False, False, False, False), timestep_conditioning=True,
    )  # fmt: skip
    vae.latents_mean, vae.latents_std = torch.linspace(-0.5, 0.5, 8), torch.linspace(0.8, 1.4, 8)
    for name, scale in vae.decoder.named_parameters():
        if "per_channel_scale" in name:  # of the noise that it adds, which is 0 before training
            torch.nn.init.constant_(scale, 0.2)
    transformer = LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=24, cross_attention_dim=48, num_layers=2,
        caption_channels=TEXT_WIDTH,
    )  # fmt: skip
    pipeline: Any = LTXPipeline(schedule, vae, t5(), byte_tokenizer(128), transformer)
    pipeline.save_pretrained(folder, safe_serialization=True)
