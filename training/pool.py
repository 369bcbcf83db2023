"""The denoiser's training data: a ring of encoded clips on the device, refreshed as training goes."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import torch
from torch import Tensor

from model_core.config import MillraceConfig
from model_core.nn.vae import VAE
from model_core.quality.words import SIZE
from training.captions import CaptionBank
from training.world import clip

_CLIPS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Batch:
    """B clips of J chunks.

    Attributes:
        clean: `[B, J, C, F, H, W]` latents.
        captions: `[B, 2]` rows of the bank, before and after the prompt switch.
        switch: `[B]` chunk of the switch; J where there is none.
        fresh: `[B]` True where chunk 0 is the first of a session; else the clip is cut from mid-stream.
    """

    clean: Tensor
    captions: Tensor
    switch: Tensor
    fresh: Tensor


class Pool:
    """Half of the clips are fresh, and start within a pixel of the middle as a new session does; those from mid-stream start anywhere."""

    def __init__(
        self, config: MillraceConfig, bank: CaptionBank, vae: VAE, size: int, chunks: int, device: torch.device, seed: int
    ) -> None:
        self.bank, self.chunks, self.device = bank, chunks, device
        self._frames_per_chunk = config.frames_per_chunk
        self._rng = random.Random(seed)
        self._generator = torch.Generator(device=device).manual_seed(seed)
        g = config.dit
        shape = (size, chunks, g.latent_channels, g.latent_frames, g.latent_height, g.latent_width)
        self._clean = torch.zeros(shape, dtype=torch.bfloat16, device=device)
        self._captions = torch.zeros(size, 2, dtype=torch.long, device=device)
        self._switch = torch.zeros(size, dtype=torch.long, device=device)
        self._fresh = torch.zeros(size, dtype=torch.bool, device=device)
        self._encode = torch.compile(vae.encode) if device.type == "cuda" else vae.encode
        self._next = 0
        for start in range(0, size, _CLIPS_AT_ONCE):
            self.refresh(min(_CLIPS_AT_ONCE, size - start))

    @torch.no_grad()
    def refresh(self, count: int) -> None:
        """Replace the oldest `count` clips by new ones; six in ten have a prompt switch."""
        device, rng, generator = self.device, self._rng, self._generator
        first = [rng.randrange(len(self.bank.texts)) for _ in range(count)]
        captions = torch.tensor([[i, self.bank.related(i, rng)] for i in first], device=device)
        switch = torch.tensor([rng.randrange(1, self.chunks) if rng.random() < 0.6 else self.chunks for _ in first], device=device)
        fresh = torch.rand(count, generator=generator, device=device) < 0.5
        uniform = torch.rand(count, 2, generator=generator, device=device)
        start = torch.where(fresh[:, None], SIZE / 2 + 2 * uniform - 1, SIZE * uniform)
        phase = torch.where(fresh, 0.0, 2 * math.pi * torch.rand(count, generator=generator, device=device))
        lead = (~fresh).long()  # a clip in mid-stream is rendered one chunk longer, so that the encoder is warm
        switch_frame = (switch + lead) * self._frames_per_chunk
        frames = clip(self.bank.scenes[captions], start, (self.chunks + 1) * self._frames_per_chunk, switch_frame, phase)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            latents = self._encode(frames)  # [B, C, (J+1)F, H, W]
        latents = latents.unflatten(2, (self.chunks + 1, -1)).transpose(1, 2)
        picked = torch.where(fresh[:, None, None, None, None, None], latents[:, :-1], latents[:, 1:])
        rows = (torch.arange(count, device=device) + self._next) % len(self._clean)
        self._clean[rows] = picked.bfloat16()
        self._captions[rows], self._switch[rows], self._fresh[rows] = captions, switch, fresh
        self._next = (self._next + count) % len(self._clean)

    def draw(self, count: int) -> Batch:
        """`count` clips, with repetition."""
        rows = torch.randint(len(self._clean), (count,), generator=self._generator, device=self.device)
        return Batch(self._clean[rows].float(), self._captions[rows], self._switch[rows], self._fresh[rows])
