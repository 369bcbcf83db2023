"""Reads attributes back from frames, without any learning: the judge of every score in the model card."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from model_core.quality.shapes import BACKGROUND_TABLE, COLOUR_TABLE, coverage
from model_core.quality.words import MOTIONS, ORBIT, RADII, SHAPES, SIZE, SPEEDS

_MAX_COLOUR_ERROR = 0.25  # RGB distance (0..1 scale) above which a colour counts as none of the table
_MAX_SHAPE_ERROR = 0.3  # squared error, as a share of the area, above which a shape counts as none of the table
_FAINT = 0.12  # RGB distance to the background below which there is no object
_JUMP = 6.0  # pixels a frame above which nothing is moving, things appear elsewhere
_STILL = 0.3  # pixels a frame below which an object rests
# Area of each shape at radius 1.
_AREA_FACTORS = tuple(float(coverage(i, torch.tensor([SIZE / 2, SIZE / 2]), torch.tensor(12.0)).sum()) / 144 for i in range(len(SHAPES)))


@dataclass(frozen=True, slots=True)
class Reading:
    """What a window of frames shows, as indices into the tables of the world; -1 where nothing in the tables fits.

    Attributes:
        background, colour, shape, motion: int64 `[B]`.
        speed: int64 `[B]`; means nothing where `motion` is still.
        size: int64 `[B]`.
        area: `[B]` pixels covered, median over the frames.
        background_rgb: `[B, 3]` in [0, 1].
    """

    background: Tensor
    colour: Tensor
    shape: Tensor
    motion: Tensor
    speed: Tensor
    size: Tensor
    area: Tensor
    background_rgb: Tensor

    def right(self, attributes: Tensor) -> dict[str, Tensor]:
        """Booleans `[B]` an attribute, against scenes `[B, 6]`."""
        return {
            "background": self.background == attributes[:, 3],
            "colour": self.colour == attributes[:, 0],
            "shape": self.shape == attributes[:, 1],
            "motion": self.motion == attributes[:, 2],
            "speed": self.speed == attributes[:, 4],
            "size": self.size == attributes[:, 5],
        }


def join(readings: Sequence[Reading]) -> Reading:
    """Readings of several batches as one."""
    return Reading(**{f.name: torch.cat([getattr(r, f.name) for r in readings]) for f in fields(Reading)})


def read(frames: Tensor) -> Reading:
    """Attributes shown by frames `[B, F, 3, H, W]` in [0, 1] with one scene; F of 8 or more."""
    ground, peak, colour_rgb, alpha = _object(frames)
    background_rgb = ground.mean(dim=(1, 3, 4))
    background = _nearest(background_rgb, BACKGROUND_TABLE.to(frames.device))
    colour = _nearest(colour_rgb, COLOUR_TABLE.to(frames.device))
    area = alpha.sum((2, 3))
    centres = _centres(alpha)
    motion, speed = _motion(centres)
    shape, size = _shape(alpha, centres, area)
    faint = peak < _FAINT
    colour, shape, size, motion, speed = (index.masked_fill(faint, -1) for index in (colour, shape, size, motion, speed))
    return Reading(
        background=background,
        colour=colour,
        shape=shape,
        motion=motion,
        speed=speed,
        size=size,
        area=area.median(1).values,
        background_rgb=background_rgb,
    )


def track(frames: Tensor) -> Tensor:
    """Where the object is in frames `[B, F, 3, H, W]` in [0, 1]: centroids `[B, F, 2]` (y, x) on the torus."""
    return _centres(_object(frames)[3])


def apart(one: Tensor, other: Tensor) -> Tensor:
    """Pixels between centroids `[..., 2]` on the torus."""
    away: Tensor = ((one - other + SIZE / 2).remainder(SIZE) - SIZE / 2).norm(dim=-1)
    return away


def _object(frames: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The ground `[B, 1, 3, H, 1]`, the contrast to it `[B]`, and the object's colour `[B, 3]` and coverage `[B, F, H, W]`."""
    ground = frames.median(dim=-1, keepdim=True).values.median(dim=1, keepdim=True).values  # follows the shading
    contrast = (frames - ground).norm(dim=2)  # [B,F,H,W]
    peak = contrast.flatten(1).quantile(0.98, dim=1)
    core = (contrast > 0.75 * peak[:, None, None, None]).float()
    colour_rgb = (frames * core[:, :, None]).sum(dim=(1, 3, 4)) / core.sum(dim=(1, 2, 3)).clamp(min=1)[:, None]
    toward = colour_rgb[:, None, :, None, None] - ground
    alpha = ((frames - ground) * toward).sum(2) / toward.square().sum(2).clamp(min=1e-3)
    return ground, peak, colour_rgb, (alpha.clamp(0, 1) - 0.15).clamp(min=0) / 0.85


def _nearest(rgb: Tensor, table: Tensor) -> Tensor:
    distance, index = torch.cdist(rgb, table).min(1)
    return index.masked_fill(distance > _MAX_COLOUR_ERROR, -1)


def _centres(alpha: Tensor) -> Tensor:
    """Toroidal centroids `[B, F, 2]` (y, x) of coverage `[B, F, H, W]`."""
    grid = (torch.arange(SIZE, device=alpha.device) + 0.5) * (2 * math.pi / SIZE)
    out = []
    for axis in (2, 3):
        line = alpha.sum(dim=5 - axis)
        angle = torch.atan2((line * grid.sin()).sum(-1), (line * grid.cos()).sum(-1))
        coarse = angle * SIZE / (2 * math.pi)
        # A circular mean is biased for lopsided shapes; one plain mean around it is not.
        offset = (torch.arange(SIZE, device=alpha.device) + 0.5 - coarse[..., None] + SIZE / 2).remainder(SIZE) - SIZE / 2
        out.append(coarse + (line * offset).sum(-1) / line.sum(-1).clamp(min=1e-3))
    return torch.stack(out, -1)


def _motion(centres: Tensor) -> tuple[Tensor, Tensor]:
    """Motion and speed indices `[B]` of centroid tracks `[B, F, 2]`."""
    frames = centres.shape[1]
    step = (centres.diff(dim=1) + SIZE / 2).remainder(SIZE) - SIZE / 2
    third = max(1, (frames - 1) // 3)
    first, last = step[:, :third].mean(1), step[:, -third:].mean(1)
    turn = torch.atan2(last[:, 0], last[:, 1]) - torch.atan2(first[:, 0], first[:, 1])
    turn = (turn + math.pi).remainder(2 * math.pi) - math.pi
    span = frames - 1 - third
    slowest_turn = SPEEDS[0] / ORBIT * span
    heading = step.mean(1)
    pace = step.norm(dim=-1).median(1).values
    straight = torch.where(heading[:, 1].abs() > heading[:, 0].abs(), (heading[:, 1] < 0).long(), 2 + (heading[:, 0] > 0).long())
    smooth = step.norm(dim=-1).max(1).values < _JUMP
    # Turning wraps after half a circle, so a fast orbit is told by how little of its path is net displacement.
    bent = heading.norm(dim=-1) < 0.75 * pace
    circling = (turn.abs() > 0.5 * slowest_turn) | bent
    motion = straight.masked_fill(circling, MOTIONS.index("circling")).masked_fill(pace < _STILL, MOTIONS.index("still"))
    speed = (pace[:, None] - torch.tensor(SPEEDS, device=pace.device)).abs().argmin(1)
    return motion.masked_fill(~smooth, -1), speed.masked_fill(~smooth, -1)


def _shape(alpha: Tensor, centres: Tensor, area: Tensor) -> tuple[Tensor, Tensor]:
    """Shape and size indices `[B]`: the template with the least error, over every second frame, and the size its area fits best."""
    alpha, centres, area = alpha[:, ::2], centres[:, ::2], area[:, ::2]
    errors, radii = [], []
    for index, factor in enumerate(_AREA_FACTORS):
        radius = (area / factor).clamp(min=1).sqrt()
        template = coverage(index, centres, radius)
        errors.append(((template - alpha).square().sum((2, 3)) / area.clamp(min=20)).mean(1))
        radii.append(radius.median(1).values)
    error, shape = torch.stack(errors, 1).min(1)
    radius = torch.stack(radii, 1).gather(1, shape[:, None])
    size = (radius - torch.tensor(RADII, device=radius.device)).abs().argmin(1)
    unknown = error > _MAX_SHAPE_ERROR
    return shape.masked_fill(unknown, -1), size.masked_fill(unknown, -1)
