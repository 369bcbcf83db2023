"""Measures of frames whose numbers are known, and that they depend on nothing but the frames."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from model_core.quality.measures import Meter, measured, predicted, reduced_luma
from model_core.quality.values import Adherence, Measures, Quality, quality_of

Frames = NDArray[np.uint8]


def plain(values: list[int], height: int = 64, width: int = 64) -> Frames:
    """A frame of one grey for each value."""
    return np.stack([np.full((height, width, 3), value, np.uint8) for value in values])


def textured(count: int, step: int) -> Frames:
    """A window of 64x64 that glides over noise, `step` pixels a frame."""
    noise = np.random.default_rng(3).integers(0, 256, (64, 64 + count * abs(step), 3), np.uint8)
    starts = [number * abs(step) for number in range(count)]
    frames = np.stack([noise[:, start : start + 64] for start in starts])
    return frames if step >= 0 else frames[::-1]


def test_a_video_that_never_changes() -> None:
    seen = measured([plain([80] * 10)])
    assert (seen.frames, seen.width, seen.height) == (10, 64, 64)
    assert (seen.flicker, seen.worst_flicker, seen.brightness_flicker, seen.smoothness) == (0.0, 0.0, 0.0, 1.0)
    assert (seen.frozen_share, seen.longest_frozen_frames, seen.black_share) == (1.0, 9, 0.0)


def test_a_video_that_alternates_between_black_and_white() -> None:
    seen = measured([plain([0, 255] * 5)])
    assert (seen.flicker, seen.worst_flicker, seen.brightness_flicker, seen.smoothness) == (1.0, 1.0, 1.0, 0.0)
    assert (seen.frozen_share, seen.longest_frozen_frames, seen.black_share) == (0.0, 0, 0.5)


def test_a_small_alternation_counts_by_its_height() -> None:
    seen = measured([plain([100, 151] * 6)])
    assert seen.flicker == pytest.approx(51 / 255)
    assert seen.brightness_flicker == pytest.approx(51 / 255)
    assert seen.smoothness == pytest.approx(1 - 51 / 255)


def test_a_fade_changes_and_does_not_flicker() -> None:
    seen = measured([plain([10 * number for number in range(20)])])
    assert seen.flicker == pytest.approx(10 / 255)
    assert (seen.brightness_flicker, seen.smoothness, seen.frozen_share) == (0.0, 1.0, 0.0)


def test_one_flash_is_the_worst_step() -> None:
    seen = measured([plain([0] * 5 + [255] + [0] * 5)])
    assert seen.worst_flicker == 1.0
    assert seen.flicker == pytest.approx(2 / 10)
    assert seen.longest_frozen_frames == 4


@pytest.mark.parametrize("step", [1, 3, 4, -2])
def test_even_motion_is_smooth_and_the_same_frames_in_disorder_are_not(step: int) -> None:
    frames = textured(24, step)
    disorder = frames[np.random.default_rng(1).permutation(24)]
    even, torn = measured([frames]), measured([disorder])
    assert even.smoothness is not None
    assert torn.smoothness is not None
    assert even.smoothness > 0.98
    assert torn.smoothness < 0.9


def test_a_picture_between_two_pictures_is_where_things_pass() -> None:
    ground = np.zeros((32, 32), np.int32)
    before, between, after = ground.copy(), ground.copy(), ground.copy()
    for picture, left in ((before, 8), (between, 11), (after, 14)):
        picture[8:16, left : left + 8] = 200
    assert np.abs(predicted(before, after) - between).mean() < 0.35 * np.abs((before + after) // 2 - between).mean()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (2, 600), (6, 6), (1080, 1920), (129, 1)])
def test_pictures_of_any_size_are_reduced(height: int, width: int) -> None:
    luma = reduced_luma(np.full((height, width, 3), 255, np.uint8))
    assert max(luma.shape) <= 128
    assert (luma == 255).all()
    seen = measured([plain([0, 255, 0, 255], height, width)])
    assert (seen.flicker, seen.brightness_flicker, seen.smoothness, seen.black_share) == (1.0, 1.0, 0.0, 0.5)


def test_black_is_nearly_all_of_a_picture() -> None:
    frames = plain([16] * 4, 100, 100)
    frames[1, 0, :] = 255  # one of a hundred rows
    frames[2, :3, :] = 255  # three
    frames[3] = 30
    assert measured([frames]).black_share == 0.5


def test_a_change_that_cannot_be_seen_is_none() -> None:
    frames = plain([80] * 3, 100, 100)
    frames[1, 0, :20] += 100  # of 10 000 pixels 20, by 100 of 255: 0.0008
    assert measured([frames]).frozen_share == 1.0
    frames[1, 0, :40] = 180
    assert measured([frames]).frozen_share == 0.0


def test_no_step_leads_over_a_cut() -> None:
    meter = Meter()
    for value in (0, 255):
        meter.add(plain([value] * 3))
        meter.cut()
    seen = meter.measures()
    assert (seen.flicker, seen.smoothness, seen.frozen_share, seen.longest_frozen_frames) == (0.0, 1.0, 1.0, 2)


def test_numbers_are_these_on_any_processor() -> None:
    noise = np.random.default_rng(3).integers(0, 256, (48, 200, 3), np.uint8)
    seen = measured([np.stack([noise[:, 3 * number : 3 * number + 60] for number in range(12)])])
    assert (seen.flicker, seen.worst_flicker) == (0.33352772001056313, 0.3345079883805374)
    assert (seen.brightness_flicker, seen.smoothness) == (0.00039733115468409584, 0.9821135620915032)


def test_few_frames_have_few_numbers() -> None:
    one, two = measured([plain([80])]), measured([plain([80, 90])])
    assert (one.flicker, one.worst_flicker, one.smoothness, one.frozen_share, one.black_share) == (None, None, None, None, 0.0)
    assert (two.flicker, two.smoothness, two.brightness_flicker) == (10 / 255, None, None)
    with pytest.raises(ValueError, match="needs a frame"):
        Meter().measures()


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_chunks_do_not_matter(lengths: list[int], seed: int) -> None:
    frames = np.random.default_rng(seed).integers(0, 256, (sum(lengths), 10, 14, 3), np.uint8)
    ends = np.cumsum(lengths)[:-1]
    assert measured(np.split(frames, ends)) == measured([frames])


def test_frames_that_are_given_back_to_their_owner_are_not_looked_at_again() -> None:
    frames, meter = textured(8, 2), Meter()
    shared = np.empty_like(frames[:1])
    for frame in frames:
        shared[0] = frame
        meter.add(shared)
        shared[:] = 0
    assert meter.measures() == measured([frames])


@pytest.mark.parametrize(
    "frames",
    [np.zeros((2, 8, 8), np.uint8), np.zeros((2, 8, 8, 4), np.uint8), np.zeros((2, 8, 8, 3), np.float32), np.zeros((0, 8, 8, 3), np.uint8)],
)
def test_what_are_no_frames_is_refused(frames: Frames) -> None:
    with pytest.raises(ValueError, match=r"must be uint8 \[N, H, W, 3\]"):
        Meter().add(frames)


def test_frames_of_another_size_are_refused() -> None:
    meter = Meter()
    meter.add(plain([1]))
    with pytest.raises(ValueError, match="must all have one size; got 32x64 after others"):
        meter.add(plain([1], 64, 32))


def test_numbers_come_back_from_json_and_newer_ones_are_passed_over() -> None:
    measures = Measures(
        frames=3, width=4, height=2, flicker=0.25, worst_flicker=0.5, brightness_flicker=None, smoothness=None, frozen_share=0.0,
        longest_frozen_frames=0, black_share=1 / 3,
    )  # fmt: skip
    adherence = Adherence(detector="millrace-64", windows=3, score=1.0, shares={"shape": 1.0})
    told = Quality(measures=measures, adherence=adherence).as_json()
    assert told["black_share"] == 0.333333
    again = quality_of({**told, "new": 1, "adherence": {**told["adherence"], "new": 2}})
    assert again.adherence == adherence
    assert math.isclose(again.measures.black_share, 1 / 3, abs_tol=1e-6)
    assert quality_of(Quality(measures=measures).as_json()).adherence is None
    with pytest.raises(KeyError):
        quality_of({"frames": 3})
