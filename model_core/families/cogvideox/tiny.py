"""Small checkpoints of CogVideoX: the 5B model, the 2B model, and version 1.5."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
)

from model_core.families.common.tiny import TEXT_WIDTH, byte_tokenizer, t5


def make(name: str, folder: Path) -> None:
    pipeline: Any = _MADE[name]()
    pipeline.save_pretrained(folder, safe_serialization=True)


def _cogvideox(schedule: Any = CogVideoXDPMScheduler, **transformer: Any) -> Any:
    vae = AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2, scaling_factor=0.7,
        sample_height=64, sample_width=96,
    )  # fmt: skip
    settings = {
        "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 4, "out_channels": 4, "time_embed_dim": 16,
        "text_embed_dim": TEXT_WIDTH, "num_layers": 2, "sample_width": 12, "sample_height": 8, "sample_frames": 9,
        "use_rotary_positional_embeddings": True,
    } | transformer  # fmt: skip
    times = schedule(
        num_train_timesteps=1000, beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, set_alpha_to_one=True,
        prediction_type="v_prediction", rescale_betas_zero_snr=True, snr_shift_scale=1.0, timestep_spacing="trailing",
    )  # fmt: skip
    return CogVideoXPipeline(byte_tokenizer(226), t5(), vae, CogVideoXTransformer3DModel(**settings), times)


_MADE: dict[str, Callable[[], Any]] = {
    "cogvideox": _cogvideox,
    "cogvideox-2b": lambda: _cogvideox(CogVideoXDDIMScheduler, use_rotary_positional_embeddings=False),
    "cogvideox-1.5": lambda: _cogvideox(patch_size_t=2, patch_bias=False),
}
