"""Batched sampling and decoding with the model's own graphs: the engine's plain reference, and the sampler of training and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise

import torch
from torch import Tensor

from model_core.diffusion.flow_match import euler_step, timesteps
from model_core.nn.causal_dit import MASKED, CausalDiT, KeyValue, TextCondition
from model_core.nn.vae import VAE
from model_core.quality.words import SIZE


def take(text: TextCondition, rows: Tensor) -> TextCondition:
    """Rows `[R]` of a text condition."""
    return TextCondition([KeyValue(k[rows], v[rows]) for k, v in text.layers], text.mask[rows], text.pooled[rows])


@torch.no_grad()
def rollout(
    model: CausalDiT,
    prompt: Callable[[int], TextCondition],
    noise: Callable[[int], Tensor],
    chunks: int,
    num_steps: int,
    shift: float,
    first: Tensor | None = None,
) -> list[Tensor]:
    """Clean chunks `[B, C, F, H, W]` of B sessions in lockstep.

    Args:
        model: the denoiser.
        prompt: chunk index → B rows of text condition.
        noise: chunk index → `[B, C, F, H, W]`.
        chunks: how many to make.
        num_steps: denoise steps a chunk.
        shift: of the noise schedule.
        first: chunk 0, where it is given.
    """
    config, times = model.config, timesteps(num_steps, shift)
    slots: list[list[KeyValue]] = []
    made: list[Tensor] = []
    for index in range(chunks):
        x, text = noise(index), prompt(index)
        if first is not None and not index:
            made, slots = [first], [model.commit(first)]
            continue
        cache, cache_mask = _window(slots, x, config.window, config.depth, config.tokens_per_chunk, config.width)
        for t, t_next in pairwise(times):
            now, later = x.new_full((len(x),), t), x.new_full((len(x),), t_next)
            x = euler_step(x, model.denoise(x, model.modulate(now, text.pooled), text, cache, cache_mask), now, later)
        made.append(x)
        slots = [*slots, model.commit(x)][-config.window :]
    return made


def _window(slots: list[list[KeyValue]], like: Tensor, window: int, depth: int, tokens: int, width: int) -> tuple[list[KeyValue], Tensor]:
    """Committed slots, oldest first, left-padded to the window → the cache a layer `[B, window * tokens, D]`, and its mask."""
    missing = window - len(slots)
    mask = like.new_zeros(len(like), window * tokens)
    mask[:, : missing * tokens] = MASKED
    empty = [like.new_zeros(len(like), missing * tokens, width)]
    cache = [
        KeyValue(torch.cat(empty + [slot[layer].key for slot in slots], 1), torch.cat(empty + [slot[layer].value for slot in slots], 1))
        for layer in range(depth)
    ]
    return cache, mask


@torch.no_grad()
def decode(vae: VAE, chunks: Iterable[Tensor]) -> Tensor:
    """Latent chunks `[B, C, F, h, w]` of a stream from its start → frames `[B, N, 3, H, W]` in [0, 1], one chunk after the other."""
    memory, frames = None, []
    for latents in chunks:
        memory = vae.new_memory(vae.decoder, len(latents), SIZE, SIZE) if memory is None else memory
        pixels, memory = vae.decode(latents, memory)
        frames.append(pixels.float().clamp(0, 1))
    return torch.cat(frames, 1)


@torch.no_grad()
def reconstruct(vae: VAE, frames: Tensor, latent_frames: int, rows_at_once: int = 32) -> Tensor:
    """Frames `[B, N, 3, H, W]` in [0, 1] through encoder and decoder, in chunks of `latent_frames`."""
    parts = [decode(vae, vae.encode(part).split(latent_frames, 2)) for part in frames.split(rows_at_once)]
    return torch.cat(parts)
