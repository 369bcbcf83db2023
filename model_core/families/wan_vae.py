"""Wan's causal video autoencoder, decoded as latent frames come: the decoder of all Wan models and of AnyFlow-FAR."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify
from numpy.typing import NDArray
from torch import Tensor

from model_core.types import Latents


@dataclass(frozen=True, slots=True)
class WanMemory:
    """The feature cache: an entry for each causal convolution of the decoder; empty before the first latent frame."""

    cache: tuple[object, ...]


class WanPainter:
    """`AutoencoderKLWan.decode` cut where chunks end.

    That function decodes latent frame by latent frame and keeps two frames of features before each causal convolution; here they are
    kept from one chunk to the next. So a clip decoded chunk by chunk is the clip decoded at once.
    """

    def __init__(self, vae: Any) -> None:
        self._vae = vae
        statistics = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in (vae.config.latents_mean, vae.config.latents_std))
        self._mean, self._std = statistics
        vae.clear_cache()
        self._convolutions = len(vae._feat_map)  # noqa: SLF001 - what its own `decode` keeps between latent frames

    def fresh(self) -> WanMemory:
        return WanMemory(())

    def paint(self, latents: Latents, memory: WanMemory) -> tuple[NDArray[np.uint8], WanMemory]:
        frames, memory = self.decode(torch.tensor(latents)[None], memory)
        return pixels(frames), memory

    def decode(self, latents: Tensor, memory: WanMemory) -> tuple[Tensor, WanMemory]:
        """Normalised latents `[1, C, F, H, W]` → frames `[1, 3, N, H, W]` in [-1, 1], and the memory after."""
        vae = self._vae
        z = latents.to(vae.dtype)
        # Divided by the reciprocal, as diffusers' pipelines do, so that the bits are theirs.
        z = z / (1.0 / self._std.to(z)) + self._mean.to(z)
        cache: list[object] = list(memory.cache) or [None] * self._convolutions
        first = not memory.cache
        frames = []
        for x in vae.post_quant_conv(z).split(1, 2):
            frames.append(
                vae.decoder(x, feat_cache=cache, feat_idx=[0], first_chunk=True)
                if first
                else vae.decoder(x, feat_cache=cache, feat_idx=[0])
            )
            first = False
        out = torch.cat(frames, 2)
        if vae.config.patch_size is not None:
            out = unpatchify(out, patch_size=vae.config.patch_size)
        return out.clamp(-1, 1), WanMemory(tuple(cache))


def pixels(frames: Tensor) -> NDArray[np.uint8]:
    """Frames `[1, 3, N, H, W]` in [-1, 1] → `[N, H, W, 3]`, rounded as diffusers' video processor rounds them."""
    unit = (frames[0].float() * 0.5 + 0.5).clamp(0, 1).permute(1, 2, 3, 0).numpy()
    return cast("NDArray[np.uint8]", (unit * 255).round().astype(np.uint8))
