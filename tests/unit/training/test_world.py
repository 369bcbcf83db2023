from __future__ import annotations

import itertools
import math
import random
import re

import pytest
import torch
from torch import Tensor

from model_core.quality.detect import Reading, join, read
from model_core.quality.shapes import COLOUR_TABLE, coverage
from model_core.quality.words import BACKGROUNDS, COLOURS, MOTIONS, RADII, SHAPES, SIZE, SPEEDS, asked_for
from training.world import Scene, caption, centres_of_screen, clip, combinations, random_scene, scene_tensor, short_caption, steady_clip

COUNT = 256
ATTRIBUTES = ("background", "colour", "shape", "motion", "size", "speed")
SCENES = [random_scene(random.Random(f"test {i}"), held_out=True) for i in range(COUNT)]
TABLE = scene_tensor(SCENES)


def look(frames: Tensor) -> Reading:
    return join([read(part) for part in frames.split(64)])


def places(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Uniform start positions and phases of `count` clips."""
    generator = torch.Generator().manual_seed(seed)
    return SIZE * torch.rand(count, 2, generator=generator), 2 * math.pi * torch.rand(count, generator=generator)


@pytest.mark.parametrize("frames", [8, 16, pytest.param(40, marks=pytest.mark.slow)])
def test_the_detector_reads_what_was_rendered(frames: int) -> None:
    """Half of the clips start as a session does, half anywhere. Of long clips fewer show as many frames."""
    count = min(COUNT, 4096 // frames)
    scenes = TABLE[:count]
    start, phase = places(count, seed=frames)
    half = count // 2
    start[:half], phase[:half] = centres_of_screen(half), 0.0
    right = look(steady_clip(scenes, start, frames, phase)).right(scenes)
    right["speed"] = right["speed"][scenes[:, 2] != MOTIONS.index("still")]
    shares = {name: right[name].float().mean().item() for name in ATTRIBUTES}
    assert {name: share for name, share in shares.items() if share < 0.98} == {}


def test_the_detector_reads_each_half_of_a_prompt_switch() -> None:
    frames, n = 16, 64
    pairs = torch.stack((TABLE[:n], TABLE[n : 2 * n]), 1)
    shown = clip(pairs, places(n, seed=1)[0], frames, torch.full((n,), frames // 2))
    for part, view in enumerate((shown[:, : frames // 2], shown[:, frames // 2 :])):
        right = look(view).right(pairs[:, part])
        assert {a for a in ATTRIBUTES[:4] if right[a].float().mean() < 0.95} == set()


def test_the_detector_does_not_see_one_scene_as_another() -> None:
    n = 64
    seen = look(steady_clip(TABLE[:n], places(n, seed=2)[0], 8)).right(TABLE[n : 2 * n])
    for attribute, column in (("background", 3), ("colour", 0), ("shape", 1), ("motion", 2)):
        assert torch.equal(seen[attribute], TABLE[:n, column] == TABLE[n : 2 * n, column]), attribute


def test_the_detector_knows_when_it_sees_nothing_it_knows() -> None:
    n = 32
    noise = read(torch.rand(n, 8, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3)))
    assert (noise.motion == -1).all()
    assert (noise.shape == -1).all()
    plain = read(torch.full((1, 8, 3, SIZE, SIZE), 0.055))
    assert plain.background.tolist() == [list(BACKGROUNDS).index("black")]
    assert [plain.colour.item(), plain.shape.item(), plain.motion.item(), plain.size.item()] == [-1] * 4
    assert read(torch.full((1, 8, 3, SIZE, SIZE), 0.0) + torch.tensor([0.9, 0.0, 0.9])[:, None, None]).background.tolist() == [-1]


def test_the_detector_refuses_two_objects_and_jumps() -> None:
    n, frames = 64, 16
    one = steady_clip(TABLE[:n], torch.full((n, 2), 16.0), frames)
    second = torch.stack([coverage(s.shape, torch.tensor([48.0, 48.0]), torch.tensor(10.0)) for s in SCENES[:n]])[:, None, None]
    two = one * (1 - second) + COLOUR_TABLE[TABLE[:n, 0]][:, None, :, None, None] * second
    assert (read(two).shape == -1).all()
    jumping = one.roll(20, dims=-1)
    jumping[:, ::2] = one[:, ::2]
    assert (read(jumping).motion == -1).all()


def test_every_value_is_drawn() -> None:
    rng = random.Random(4)
    for held_out in (True, False):
        scenes = [random_scene(rng, held_out) for _ in range(2000)]
        sizes = (len(COLOURS), len(SHAPES), len(MOTIONS), len(BACKGROUNDS), len(SPEEDS), len(RADII))
        for column, size in enumerate(sizes):
            assert set(scene_tensor(scenes)[:, column].tolist()) == set(range(size))


def test_held_out_combinations_never_train_and_leave_every_pair() -> None:
    training, held_out = combinations(held_out=False), combinations(held_out=True)
    assert len(held_out) >= 256
    assert {s.combination for s in training} & {s.combination for s in held_out} == set()
    for first, second in itertools.combinations(range(4), 2):
        pairs = [{(s.combination[first], s.combination[second]) for s in part} for part in (training, held_out)]
        assert pairs[1] <= pairs[0]
    rng = random.Random(5)
    drawn = [random_scene(rng, held_out=False) for _ in range(500)] + [short_caption(rng)[0] for _ in range(500)]
    assert not any(scene.held_out() for scene in drawn)
    assert all(random_scene(rng, held_out=True).held_out() for _ in range(500))


COLOUR_WORDS = (
    "red|scarlet|crimson", "orange|tangerine", "yellow|golden", "green|emerald",
    "blue|azure", "purple|violet", "pink|rose", "white|snow white",
)  # fmt: skip
SHAPE_WORDS = ("circle|ball|disc|dot", "square|box|block", "triangle|pyramid", "star", "ring|donut|hoop", "cross|plus sign")
MOTION_WORDS = (
    "right", "left", "up|upwards|rising|climbing", "down|falling|sinking|dropping",
    "still|not moving|at rest|in place", "circling|circles|orbiting|round",
)  # fmt: skip
BACKGROUND_WORDS = (
    "black|pitch black", "gray|grey", "navy|dark blue", "dark green|forest green",
    "brown", "cream|beige", "sky|sky blue|light blue", "maroon|dark red",
)  # fmt: skip
WORDS = {
    "colour": dict(zip(COLOURS, COLOUR_WORDS, strict=True)),
    "shape": dict(zip(SHAPES, SHAPE_WORDS, strict=True)),
    "motion": dict(zip(MOTIONS, MOTION_WORDS, strict=True)),
    "background": dict(zip(BACKGROUNDS, BACKGROUND_WORDS, strict=True)),
}


def says(text: str, kind: str, value: str) -> bool:
    return re.search(rf"\b({WORDS[kind][value]})\b", text) is not None


def test_a_caption_names_what_the_scene_shows() -> None:
    rng = random.Random(6)
    for scene in (random_scene(rng, held_out=bool(i % 2)) for i in range(500)):
        text = caption(scene, rng)
        names = {
            "colour": list(COLOURS)[scene.colour], "shape": SHAPES[scene.shape],
            "motion": MOTIONS[scene.motion], "background": list(BACKGROUNDS)[scene.background],
        }  # fmt: skip
        assert all(says(text, kind, value) for kind, value in names.items()), (text, names)
        shapes = [shape for shape in SHAPES if says(text, "shape", shape)]
        assert shapes == [SHAPES[scene.shape]], text
        motions = [motion for motion in MOTIONS if says(text, "motion", motion)]
        assert motions == [MOTIONS[scene.motion]], text
        assert (re.search(r"\bslowly\b", text) is not None) == (scene.speed == 0)
        assert (re.search(r"\b(quickly|fast)\b", text) is not None) == (scene.speed == 2)
        assert (re.search(r"\b(small|little|tiny)\b", text) is not None) == (scene.size == 0)
        assert (re.search(r"\b(large|big|huge)\b", text) is not None) == (scene.size == 2)


def test_a_prompt_is_read_as_the_scene_that_it_was_written_for() -> None:
    rng = random.Random(8)
    for scene in (random_scene(rng, held_out=bool(i % 2)) for i in range(500)):
        text = caption(scene, rng)
        assert asked_for(text.upper()) == {
            "colour": scene.colour, "shape": scene.shape, "motion": scene.motion, "background": scene.background,
        }, text  # fmt: skip
    for _ in range(500):
        scene, text = short_caption(rng)
        asked = asked_for(text)
        assert asked["shape"] == scene.shape
        assert asked.items() <= {**{name: getattr(scene, name) for name in ("colour", "shape", "motion", "background")}}.items(), text


def test_a_short_caption_means_its_defaults() -> None:
    rng = random.Random(7)
    left_out = set()
    for _ in range(500):
        scene, text = short_caption(rng)
        assert scene.has_contrast()
        assert says(text, "shape", SHAPES[scene.shape])
        if not any(says(text, "motion", motion) for motion in MOTIONS):
            assert (MOTIONS[scene.motion], scene.speed) == ("still", 1)
            left_out.add("motion")
        if "background" not in text:
            assert scene.background == list(BACKGROUNDS).index("black")
            left_out.add("background")
        if not says(text, "colour", list(COLOURS)[scene.colour]):
            assert list(COLOURS)[scene.colour] == "white"
            left_out.add("colour")
    assert left_out == {"motion", "background", "colour"}


def test_contrast_is_required() -> None:
    assert not Scene(list(COLOURS).index("white"), 0, 0, list(BACKGROUNDS).index("cream")).has_contrast()
    assert all(scene.has_contrast() for scene in combinations(held_out=False))
