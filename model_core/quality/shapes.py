"""The shapes of the embedded model's world, on tensors: what their colours are, and which pixels they cover."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from model_core.quality.words import BACKGROUNDS, COLOURS, SIZE

COLOUR_TABLE = torch.tensor(list(COLOURS.values()), dtype=torch.float32) / 255
BACKGROUND_TABLE = torch.tensor(list(BACKGROUNDS.values()), dtype=torch.float32) / 255


def _circle(y: Tensor, x: Tensor, r: Tensor) -> Tensor:
    return (y * y + x * x).sqrt() - r


def _square(y: Tensor, x: Tensor, r: Tensor) -> Tensor:
    return torch.maximum(y.abs(), x.abs()) - 0.86 * r


def _triangle(y: Tensor, x: Tensor, r: Tensor) -> Tensor:
    side = math.sqrt(3) / 2
    return torch.maximum(y, side * x.abs() - 0.5 * y) - 0.62 * r


def _star(y: Tensor, x: Tensor, r: Tensor) -> Tensor:
    distance, angle = (y * y + x * x).sqrt(), torch.atan2(x, -y)
    sector = 2 * math.pi / 5
    folded = (angle + sector / 2).remainder(sector) - sector / 2
    px, py = distance * folded.abs().sin(), distance * folded.cos()
    outer, inner = 1.22 * r, 0.6 * r
    ex, ey = inner * math.sin(sector / 2), inner * math.cos(sector / 2) - outer
    return (px * -ey + (py - outer) * ex) / (ex * ex + ey * ey).sqrt()


def _ring(y: Tensor, x: Tensor, r: Tensor) -> Tensor:
    distance = (y * y + x * x).sqrt()
    return torch.maximum(distance - 1.05 * r, 0.58 * r - distance)


def _cross(y: Tensor, x: Tensor, r: Tensor) -> Tensor:
    arm, reach = 0.34 * r, 1.05 * r
    return torch.minimum(torch.maximum(y.abs() - reach, x.abs() - arm), torch.maximum(x.abs() - reach, y.abs() - arm))


# Signed distance to the outline, negative inside, of a shape of radius `r` at offsets `y`, `x` from its centre.
_OUTLINES = (_circle, _square, _triangle, _star, _ring, _cross)


def coverage(shape: int, centre: Tensor, radius: Tensor, scale: int = 1) -> Tensor:
    """Anti-aliased coverage `[..., H, W]` in [0, 1] of one kind of shape at centres `[..., 2]` (y, x) with radii `[...]`, on the torus.

    With `scale`, the same world in so many times the pixels: centres and radii stay in pixels of scale 1.
    """
    grid = (torch.arange(SIZE * scale, device=centre.device, dtype=torch.float32) + 0.5) / scale
    half = SIZE / 2
    y = (grid - centre[..., 0, None] + half).remainder(SIZE) - half
    x = (grid - centre[..., 1, None] + half).remainder(SIZE) - half
    signed = _OUTLINES[shape](y[..., :, None], x[..., None, :], radius[..., None, None])
    return (0.5 - signed * (scale / 1.2)).clamp(0, 1)
