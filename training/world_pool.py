"""The world's training data: a ring of encoded clips under keys, refreshed as training goes."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from model_core.config import MillraceConfig
from model_core.nn.vae import VAE
from model_core.quality.words import SIZE
from training.captions import CaptionBank
from training.walls import headings_of, key_sequence, multi_hot, room, walk
from training.world import render

_CLIPS_AT_ONCE = 16
_SWITCHING = 0.15  # of the clips change their prompt


@dataclass(frozen=True, slots=True)
class WorldBatch:
    """B clips of J chunks.

    Attributes:
        clean: `[B, J, C, F, H, W]` latents.
        held: `[B, J, K]` 1 for each key that counts.
        captions: `[B, 2]` rows of the bank, before and after the prompt switch.
        switch: `[B]` chunk of the switch; J where there is none.
        fresh: `[B]` True where chunk 0 is the first of a session; else the clip is cut from mid-stream.
    """

    clean: Tensor
    held: Tensor
    captions: Tensor
    switch: Tensor
    fresh: Tensor


class WorldPool:
    """Four in ten clips are fresh, and start within a pixel of the middle as a new session does; those from mid-stream start anywhere."""

    def __init__(
        self, config: MillraceConfig, bank: CaptionBank, vae: VAE, size: int, chunks: int, device: torch.device, seed: int
    ) -> None:
        self.bank, self.chunks, self.device = bank, chunks, device
        self._config, self._vae = config, vae
        self._rng = random.Random(seed)
        self._generator = torch.Generator(device=device).manual_seed(seed)
        g = config.dit
        self._clean = torch.zeros(size, chunks, g.latent_channels, g.latent_frames, g.latent_height, g.latent_width, device=device)
        self._held = torch.zeros(size, chunks, g.keys, device=device)
        self._captions = torch.zeros(size, 2, dtype=torch.long, device=device)
        self._switch = torch.zeros(size, dtype=torch.long, device=device)
        self._fresh = torch.zeros(size, dtype=torch.bool, device=device)
        self._next = 0
        for start in range(0, size, _CLIPS_AT_ONCE):
            self.refresh(min(_CLIPS_AT_ONCE, size - start))

    @torch.no_grad()
    def refresh(self, count: int) -> None:
        """Replace the oldest `count` clips by new ones."""
        device, rng, n = self.device, self._rng, self._config.frames_per_chunk
        first = [rng.randrange(len(self.bank.texts)) for _ in range(count)]
        captions = torch.tensor([[i, self.bank.related(i, rng)] for i in first], device=device)
        switch = torch.tensor([rng.randrange(1, self.chunks) if rng.random() < _SWITCHING else self.chunks for _ in first], device=device)
        fresh = torch.rand(count, generator=self._generator, device=device) < 0.4
        uniform = torch.rand(count, 2, generator=self._generator, device=device)
        lead = (~fresh).long()  # a clip in mid-stream is rendered one chunk longer, so that the encoder is warm
        keys = [key_sequence(self.chunks + 1, rng) for _ in first]
        scenes = self.bank.scenes[captions]
        part = (torch.arange(self.chunks + 1, device=device)[None] >= (switch + lead)[:, None]).long()
        low, high = room(scenes[:, 0])
        start = torch.where(fresh[:, None], SIZE / 2 + 2 * uniform - 1, low + uniform * (high - low))
        centres = walk(scenes.gather(1, part[..., None].expand(-1, -1, scenes.shape[2])), start, headings_of(keys).to(device), n)
        latents = self._vae.encode(render(scenes, centres, (switch + lead) * n)).unflatten(2, (self.chunks + 1, -1)).transpose(1, 2)
        held = multi_hot(keys).to(device)
        rows = (torch.arange(count, device=device) + self._next) % len(self._clean)
        self._clean[rows] = torch.where(fresh[:, None, None, None, None, None], latents[:, :-1], latents[:, 1:])
        self._held[rows] = torch.where(fresh[:, None, None], held[:, :-1], held[:, 1:])
        self._captions[rows], self._switch[rows], self._fresh[rows] = captions, switch, fresh
        self._next = (self._next + count) % len(self._clean)

    def draw(self, count: int) -> WorldBatch:
        """`count` clips, with repetition."""
        rows = torch.randint(len(self._clean), (count,), generator=self._generator, device=self.device)
        return WorldBatch(self._clean[rows], self._held[rows], self._captions[rows], self._switch[rows], self._fresh[rows])
