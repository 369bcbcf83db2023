"""The world of walls: one shape in a room, whose walls are the edges of the picture. It moves as keys say, and stops where it touches.

A chunk of frames is made under one set of keys. Nothing else moves the shape: captions say what it is, never where it goes.
"""

from __future__ import annotations

import random
from functools import cache

import torch
from torch import Tensor

from model_core.acts import ARROWS, Keys, counting, heading
from model_core.quality.shapes import coverage
from model_core.quality.words import (
    BACKGROUND_WORDS,
    BACKGROUNDS,
    COLOUR_WORDS,
    COLOURS,
    MOTIONS,
    RADII,
    SHAPE_WORDS,
    SHAPES,
    SIZE,
    SPEEDS,
)
from training.world import Scene, render, size_word

PACE = SPEEDS[1]  # pixels a frame along each axis, which is what the denoiser knows as a shape's usual speed
_STILL = MOTIONS.index("still")
_TEMPLATES = (
    "a {size} {colour} {shape} on a {bg} background", "a {size} {colour} {shape} over a {bg} background", "{size} {colour} {shape} on {bg}",
    "a {colour} {size} {shape} in front of {bg}", "on a {bg} background, a {size} {colour} {shape}",
    "a {size} {colour} {shape}, {bg} background",
)  # fmt: skip
KEYS: tuple[Keys, ...] = ((), ("up",), ("down",), ("left",), ("right",))
DIAGONALS: tuple[Keys, ...] = tuple((a, b) for a in ARROWS[:2] for b in ARROWS[2:])
_PROBE = 12.0  # radius at which extents are measured


@cache
def _extents() -> Tensor:
    """`[S, 2, 2]`: how far each shape of radius 1 reaches up and down, and to the left and right, of its centre."""
    rows = []
    for shape in range(len(SHAPES)):
        alpha = coverage(shape, torch.tensor([SIZE / 2, SIZE / 2]), torch.tensor(_PROBE))
        sides = []
        for axis in (1, 0):
            line = alpha.amax(axis)
            inside = line.nonzero().flatten()
            first, last = int(inside[0]), int(inside[-1])
            # A pixel at the rim is covered in part.
            sides.append([SIZE / 2 - (first + 1 - float(line[first])), last + float(line[last]) - SIZE / 2])
        rows.append(sides)
    return torch.tensor(rows) / _PROBE


def room(scenes: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the greatest centres `[..., 2]` (y, x) that shapes of scenes `[..., 6]` may have."""
    reach = _extents().to(scenes.device)[scenes[..., 1]] * torch.tensor(RADII, device=scenes.device)[scenes[..., 5], None, None]
    return reach[..., 0], SIZE - reach[..., 1]


def walk(scenes: Tensor, start: Tensor, headings: Tensor, frames_per_chunk: int) -> Tensor:
    """Centres of shapes that go as they are told, and stop at the walls. The first frame shows the start.

    Args:
        scenes: `[B, J, 6]`, one for each chunk.
        start: `[B, 2]` first centre (y, x); one outside the room is moved into it.
        headings: `[B, J, 2]` down and right, -1, 0 or 1, one for each chunk.
        frames_per_chunk: n.

    Returns:
        `[B, J * n, 2]`.
    """
    low, high = (side.repeat_interleave(frames_per_chunk, 1) for side in room(scenes))
    steps = headings.repeat_interleave(frames_per_chunk, 1).float() * PACE
    centre, path = start, []
    for frame in range(steps.shape[1]):
        step = steps[:, frame] if frame else torch.zeros_like(start)
        centre = torch.minimum(torch.maximum(centre + step, low[:, frame]), high[:, frame])
        path.append(centre)
    return torch.stack(path, 1)


def film(scenes: Tensor, centres: Tensor) -> Tensor:
    """Frames `[B, F, 3, H, W]` in [0, 1] of scenes `[B, 6]` at centres `[B, F, 2]`."""
    never = torch.full((len(scenes),), centres.shape[1], device=scenes.device)
    return render(scenes[:, None].expand(-1, 2, -1), centres, never)


def key_sequence(chunks: int, rng: random.Random, diagonals: float = 0.15) -> list[Keys]:
    """What a player might hold, a chunk each: every choice is held for one to four chunks."""
    keys: list[Keys] = []
    while len(keys) < chunks:
        held = rng.choice(DIAGONALS) if rng.random() < diagonals else rng.choice(KEYS)
        keys += [held] * rng.choice((1, 2, 2, 3, 4))
    return keys[:chunks]


def headings_of(keys: list[list[Keys]]) -> Tensor:
    """`[B, J, 2]` of B sequences of J keys."""
    return torch.tensor([[heading(held) for held in row] for row in keys])


def multi_hot(keys: list[list[Keys]]) -> Tensor:
    """`[B, J, K]`: 1 where a key counts. Of opposite keys none does."""
    return torch.tensor([[[float(key in counting(held)) for key in ARROWS] for held in row] for row in keys])


def random_scene(rng: random.Random, *, held_out: bool) -> Scene:
    """A scene with contrast that says nothing of motion, from the training combinations or from the held-out ones."""
    while True:
        scene = Scene(rng.randrange(8), rng.randrange(6), _STILL, rng.randrange(8), size=rng.randrange(3))
        if scene.has_contrast() and scene.held_out() == held_out:
            return scene


def caption(scene: Scene, rng: random.Random) -> str:
    """One of many ways to say the scene, without a word about motion."""
    words = {
        "size": size_word(scene, rng), "colour": rng.choice(COLOUR_WORDS[list(COLOURS)[scene.colour]]),
        "shape": rng.choice(SHAPE_WORDS[SHAPES[scene.shape]]), "bg": rng.choice(BACKGROUND_WORDS[list(BACKGROUNDS)[scene.background]]),
    }  # fmt: skip
    return " ".join(rng.choice(_TEMPLATES).format(**words).split())
