"""Frames as networks make them, into bytes."""

from __future__ import annotations

import torch
from torch import Tensor


def with_peak(frames: Tensor) -> tuple[Tensor, Tensor]:
    """`bytes_of`, which hides what is no number, and the largest magnitude, which is one only if all are."""
    return bytes_of(frames), frames.float().abs().amax()


def bytes_of(frames: Tensor) -> Tensor:
    """Frames `[B, 3, N, H, W]` in [-1, 1] → uint8 `[B, N, H, W, 3]`, rounded as diffusers' video processor rounds them."""
    unit = (frames.float() * 0.5 + 0.5).clamp(0, 1).permute(0, 2, 3, 4, 1)
    return (unit * 255).round().to(torch.uint8)
