"""Rectified-flow maths, as functions of tensors.

x_t = (1 - t) x_0 + t ε, t from 1 (noise) to 0 (clean); the model predicts x_0.
Sources: Liu et al., arXiv 2209.03003; Lipman et al., arXiv 2210.02747.
The time shift is that of Esser et al., arXiv 2403.03206, eq. 23.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_MASK64 = (1 << 64) - 1
_ROUNDING = 1e-6  # times of a schedule are in float32


def timesteps(num_steps: int, shift: float) -> tuple[float, ...]:
    """`num_steps + 1` times from 1 down to 0, shifted toward noise."""
    uniform = (1 - i / num_steps for i in range(num_steps + 1))
    return tuple(shift * u / (1 + (shift - 1) * u) for u in uniform)


def first_step(times: Sequence[float], strength: float) -> int:
    """The step that a source of `strength` begins at: the first whose time is not above it, or the last. `times` `[S + 1]` fall to 0."""
    last = len(times) - 2
    return next((step for step in range(last) if times[step] <= strength + _ROUNDING), last)


def add_noise(clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """`clean`, `noise` `[B, C, F, H, W]`, `t` `[B]`."""
    t = t[:, None, None, None, None]
    return (1 - t) * clean + t * noise


def mixed(clean: Tensor, noise: Tensor, t: float) -> Tensor:
    """One chunk at time `t`, of tensors of any one shape."""
    return (1 - t) * clean + t * noise


def euler_step(x_t: Tensor, x0: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
    """One step along the straight path through `x0`, which it returns at `t_next` = 0. Rows `[B, C, F, H, W]` at their own times `[B]`."""
    ratio = (t_next / t)[:, None, None, None, None]
    return x0 + ratio * (x_t - x0)


def chunk_noise(seed: int, chunk_index: int, shape: tuple[int, ...], step: int = 0) -> Tensor:
    """Float32 noise of a chunk: a pure function of (seed, chunk index), drawn on the CPU so that every device sees the same.

    Samplers that add noise anew at each step draw it for the `step` that begins with it.
    """
    mixed = (seed * 0x9E3779B97F4A7C15 + (chunk_index + 1) * 0xBF58476D1CE4E5B9 + step * 0xD6E8FEB86659FD93) & _MASK64
    mixed = ((mixed ^ (mixed >> 31)) * 0x94D049BB133111EB) & _MASK64
    generator = torch.Generator(device="cpu").manual_seed(mixed >> 1)
    return torch.randn(shape, generator=generator)
