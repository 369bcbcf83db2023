"""The world the embedded model lives in: a caption grammar and a renderer, both on tensors.

A scene is one shape moving over a plain background. Space is a torus, so motion never ends. A clip has one or two
prompts; the second starts at a chunk boundary and changes attributes where the object is (position is kept).
Attributes that a caption leaves out take a fixed default, so a short prompt has one answer.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

import torch
from torch import Tensor

from model_core.quality.shapes import BACKGROUND_TABLE, COLOUR_TABLE, coverage
from model_core.quality.words import (
    BACKGROUND_WORDS,
    BACKGROUNDS,
    COLOUR_WORDS,
    COLOURS,
    MOTION_WORDS,
    MOTIONS,
    ORBIT,
    RADII,
    SHAPE_WORDS,
    SHAPES,
    SIZE,
    SPEEDS,
)

MIN_CONTRAST = 110.0  # RGB distance below which a colour and a background are never paired

_SPEED_WORDS = (("slowly",), ("",), ("quickly", "fast"))
_SIZE_WORDS = (("small", "small", "little", "tiny"), ("", "", "medium"), ("large", "big", "large", "huge"))
_TEMPLATES = (
    "a {size} {colour} {shape} {motion} over a {bg} background",
    "a {size} {colour} {shape} {motion} on a {bg} background",
    "a {size} {colour} {shape} is {motion} on {bg}",
    "{size} {colour} {shape} {motion}, {bg} background",
    "on a {bg} background, a {size} {colour} {shape} {motion}",
    "{bg} background with a {size} {colour} {shape} {motion}",
    "a {colour} {size} {shape}, {motion}, in front of {bg}",
    "video of a {size} {colour} {shape} {motion} against a {bg} backdrop",
)


@dataclass(frozen=True, slots=True)
class Scene:
    """Indices into the tables of `model_core.quality.words`."""

    colour: int
    shape: int
    motion: int
    background: int
    speed: int = 1
    size: int = 1

    def held_out(self) -> bool:
        """True for the attribute combinations kept away from training: a rule, one in seven, and every pair of attributes is still seen."""
        return (self.colour + 2 * self.shape + 3 * self.motion + 5 * self.background) % 7 == 0

    @property
    def combination(self) -> tuple[int, int, int, int]:
        return self.colour, self.shape, self.motion, self.background

    def has_contrast(self) -> bool:
        difference = (COLOUR_TABLE[self.colour] - BACKGROUND_TABLE[self.background]) * 255
        return float(difference.norm()) >= MIN_CONTRAST


def random_scene(rng: random.Random, held_out: bool) -> Scene:
    """A scene with contrast, from the training combinations or from the held-out ones."""
    while True:
        motion = rng.randrange(len(MOTIONS))
        speed = 1 if MOTIONS[motion] == "still" else rng.randrange(3)
        scene = Scene(rng.randrange(8), rng.randrange(6), motion, rng.randrange(8), speed, rng.randrange(3))
        if scene.has_contrast() and scene.held_out() == held_out:
            return scene


def combinations(*, held_out: bool) -> list[Scene]:
    """Every combination of colour, shape, motion and background with contrast, at default speed and size."""
    axes = (range(len(COLOURS)), range(len(SHAPES)), range(len(MOTIONS)), range(len(BACKGROUNDS)))
    scenes = (Scene(*indices) for indices in itertools.product(*axes))
    return [scene for scene in scenes if scene.has_contrast() and scene.held_out() == held_out]


def size_word(scene: Scene, rng: random.Random) -> str:
    """One of the words for its size; the usual size may go unsaid."""
    return rng.choice(_SIZE_WORDS[scene.size])


def caption(scene: Scene, rng: random.Random) -> str:
    """One of many ways to say the scene."""
    motion = rng.choice(MOTION_WORDS[MOTIONS[scene.motion]])
    speed = rng.choice(_SPEED_WORDS[scene.speed])
    motion = rng.choice((f"{motion} {speed}", f"{speed} {motion}")) if speed else motion
    words = {
        "size": rng.choice(_SIZE_WORDS[scene.size]), "motion": motion,
        "colour": rng.choice(COLOUR_WORDS[list(COLOURS)[scene.colour]]),
        "shape": rng.choice(SHAPE_WORDS[SHAPES[scene.shape]]),
        "bg": rng.choice(BACKGROUND_WORDS[list(BACKGROUNDS)[scene.background]]),
    }  # fmt: skip
    return " ".join(rng.choice(_TEMPLATES).format(**words).split())


def short_caption(rng: random.Random) -> tuple[Scene, str]:
    """A prompt that leaves attributes out, with the scene its defaults mean: white, still, on black. Never a held-out combination."""
    while True:
        scene = random_scene(rng, held_out=False)
        say_motion, say_background, say_colour = rng.random() < 0.5, rng.random() < 0.3, rng.random() < 0.8
        if say_motion and say_background and say_colour:
            continue
        scene = Scene(
            scene.colour if say_colour else list(COLOURS).index("white"), scene.shape,
            scene.motion if say_motion else MOTIONS.index("still"),
            scene.background if say_background else 0, scene.speed if say_motion else 1, scene.size,
        )  # fmt: skip
        if scene.held_out() or not scene.has_contrast():
            continue
        text = f"a {rng.choice(_SIZE_WORDS[scene.size])}"
        text += f" {rng.choice(COLOUR_WORDS[list(COLOURS)[scene.colour]])}" if say_colour else ""
        text += f" {rng.choice(SHAPE_WORDS[SHAPES[scene.shape]])}"
        if say_motion:
            text += f" {rng.choice(MOTION_WORDS[MOTIONS[scene.motion]])} {rng.choice(_SPEED_WORDS[scene.speed])}"
        if say_background:
            text += f" on a {rng.choice(BACKGROUND_WORDS[list(BACKGROUNDS)[scene.background]])} background"
        return scene, " ".join(text.split())


def scene_tensor(scenes: list[Scene]) -> Tensor:
    """`[S, 6]` int64: colour, shape, motion, background, speed, size."""
    return torch.tensor([[s.colour, s.shape, s.motion, s.background, s.speed, s.size] for s in scenes])


def trajectory(attributes: Tensor, start: Tensor, frames: int, switch_frame: Tensor, phase: Tensor | None = None) -> Tensor:
    """Object centres.

    Args:
        attributes: `[B, 2, 6]` scene before and after the switch.
        start: `[B, 2]` first centre (y, x).
        frames: F.
        switch_frame: `[B]` first frame of the second scene.
        phase: `[B]` heading in radians of a circling first scene at frame 0. Without it, and on a switch, circling heads right first, then
            turns down.

    Returns:
        `[B, F, 2]` (y, x), not wrapped.
    """
    device = attributes.device
    speeds = torch.tensor(SPEEDS, device=device)
    heading = torch.tensor([[0.0, 1], [0, -1], [-1, 0], [1, 0], [0, 0], [0, 0]], device=device)
    time = torch.arange(frames, device=device)
    velocity = torch.zeros(len(attributes), frames, 2, device=device)
    for part in range(2):
        motion, speed = attributes[:, part, 2], speeds[attributes[:, part, 4]]
        straight = (heading[motion] * speed[:, None])[:, None].expand(-1, frames, -1)
        since = time[None] - (switch_frame[:, None] if part else 0)
        angle = since * (speed / ORBIT)[:, None] + (phase[:, None] if phase is not None and part == 0 else 0)
        orbit = torch.stack((torch.sin(angle), torch.cos(angle)), -1) * speed[:, None, None]
        moving = torch.where((motion == MOTIONS.index("circling"))[:, None, None], orbit, straight)
        active = time[None] >= switch_frame[:, None] if part else time[None] < switch_frame[:, None]
        velocity = torch.where(active[..., None], moving, velocity)
    steps = torch.cat((torch.zeros_like(velocity[:, :1]), velocity[:, 1:]), 1)
    return start[:, None] + steps.cumsum(1)


def render(attributes: Tensor, centres: Tensor, switch_frame: Tensor, scale: int = 1) -> Tensor:
    """Frames `[B, F, 3, H, W]` in [0, 1] for scenes before and after the switch `[B, 2, 6]`, centres `[B, F, 2]`, switch `[B]`.

    With `scale`, H and W are so many times larger; see `coverage`.
    """
    device = attributes.device
    frames = centres.shape[1]
    part = (torch.arange(frames, device=device)[None] >= switch_frame[:, None]).long()
    now = attributes.gather(1, part[..., None].expand(-1, -1, attributes.shape[2]))
    radius = torch.tensor(RADII, device=device)[now[..., 5]]
    alpha = torch.zeros(*radius.shape, SIZE * scale, SIZE * scale, device=device)
    for shape in range(len(SHAPES)):
        shown = now[..., 1] == shape
        alpha[shown] = coverage(shape, centres[shown], radius[shown], scale)
    shade = _shade(scale).to(device)
    ground = BACKGROUND_TABLE.to(device)[now[..., 3]][..., None, None] * shade
    colour = COLOUR_TABLE.to(device)[now[..., 0]][..., None, None]
    alpha = alpha[:, :, None]
    return ground * (1 - alpha) + colour * alpha


def _shade(scale: int) -> Tensor:
    """`[H, 1]`: backgrounds are a little lighter at the top."""
    row = (torch.arange(SIZE * scale) + 0.5) / scale - 0.5  # of scale 1, whose first row is 1.05 and whose last is 0.95
    return (1.05 - 0.1 * row / (SIZE - 1))[:, None]


def clip(attributes: Tensor, start: Tensor, frames: int, switch_frame: Tensor, phase: Tensor | None = None) -> Tensor:
    """Frames `[B, F, 3, H, W]` in [0, 1]; arguments as for `trajectory`."""
    return render(attributes, trajectory(attributes, start, frames, switch_frame, phase), switch_frame)


def steady_clip(scenes: Tensor, start: Tensor, frames: int, phase: Tensor | None = None) -> Tensor:
    """Frames `[B, F, 3, H, W]` in [0, 1] of one scene each, `[B, 6]`, that never changes."""
    never = torch.full((len(scenes),), frames, device=scenes.device)
    return clip(scenes[:, None].expand(-1, 2, -1), start, frames, never, phase)


def centres_of_screen(count: int) -> Tensor:
    """`[B, 2]`: where the object of a first prompt starts."""
    return torch.full((count, 2), SIZE / 2)
