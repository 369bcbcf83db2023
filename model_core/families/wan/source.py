"""Wan's autoencoder as the encoder of sources that come chunk by chunk: for all streaming models on Wan's latents."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from numpy.typing import NDArray

from model_core.families.checkpoints.loading import load_module
from model_core.families.common.config import CheckpointConfig
from model_core.types import Latents


def load_video_encoder(config: CheckpointConfig) -> WanVideoEncoder:
    return WanVideoEncoder(load_module(config.checkpoint, "vae", AutoencoderKLWan), config)


class WanVideoEncoder:
    """A `VideoEncoder`, eagerly on the CPU.

    Its causal convolutions look back further than any bounded past. A chunk is therefore encoded as the end of a short clip that begins one
    chunk and one frame before it, as `CheckpointConfig.source_context` says; the first frame of a clip has a latent frame to itself.
    """

    def __init__(self, vae: Any, config: CheckpointConfig) -> None:
        self._vae, self._config = vae, config
        self._mean, self._deviation = (
            torch.tensor(values).view(-1, 1, 1, 1) for values in (vae.config.latents_mean, vae.config.latents_std)
        )

    def encode(self, frames: NDArray[np.uint8], chunk: int) -> Latents:
        pixels = torch.tensor(frames).permute(3, 0, 1, 2)[None].float() / 255 * 2 - 1
        clip = self._vae.encode(pixels.to(self._vae.dtype), return_dict=False)[0].mode()[0].float()
        latents = (clip - self._mean) / self._deviation
        return cast("Latents", latents[:, -self._config.grid.latents(chunk) :].numpy().copy())
