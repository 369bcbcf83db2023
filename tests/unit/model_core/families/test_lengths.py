"""Lengths, sizes and rates: only what a model makes exactly is offered, and its rate reaches the network where the network looks at it."""

from __future__ import annotations

from dataclasses import replace

import diffusers
import numpy as np
import pytest
import torch

from deployments.config.application import AppConfig
from model_core.config import EngineConfig
from model_core.engine.engine import Engine
from model_core.errors import WeightsError
from model_core.families.checkpoints.checkpoint import Checkpoint
from model_core.families.described import Choice, describe
from model_core.families.registry import family, tiny_checkpoints
from tests import checkpoints
from tests.models import make
from tests.rounding import assert_rounds_alike


@pytest.mark.parametrize(
    ("name", "given", "sentence"),
    [
        ("cogvideox", {"frames": 5}, "frames must be 1 more than a multiple of 8 for cogvideox; got 5"),
        ("cogvideox-1.5", {"frames": 13}, "frames must be 1 more than a multiple of 8 for cogvideox; got 13"),
        ("causal-wan", {"frames": 25}, "frames must fill whole chunks for causal-wan: the next length is 33; got 25"),
        ("causal-wan", {"frames": 5}, "frames must fill whole chunks for causal-wan: the next length is 9; got 5"),
    ],
)
def test_lengths_that_would_be_cut_or_rounded_are_refused(name: str, given: dict[str, int], sentence: str) -> None:
    with pytest.raises(WeightsError, match=sentence):
        checkpoints.config(name, **given)


@pytest.mark.parametrize("name", ["cogvideox", "cogvideox-1.5"])
@pytest.mark.parametrize("frames", [1, 9, 17])
def test_cogvideox_makes_as_many_frames_as_its_grid_says(name: str, frames: int) -> None:
    config = checkpoints.config(name, frames=frames)
    painter = family("cogvideox").parts.painter(config)
    with torch.inference_mode():
        made, _ = painter.paint(np.zeros(config.latent_shape(0), np.float32), painter.fresh())
    assert len(made) == config.grid.max_frames == frames


@pytest.mark.parametrize("name", sorted(tiny_checkpoints()))
def test_what_is_left_out_is_something_that_the_model_makes(name: str) -> None:
    where = Checkpoint(folder=str(checkpoints.folder(name)))
    config = describe(Choice(checkpoint=where))
    again = describe(Choice(checkpoint=where, height=config.height, width=config.width, frames=config.grid.max_frames or 0))
    assert again == config
    assert config.grid.max_frames is None or config.grid.max_frames >= 49


@pytest.mark.parametrize(
    ("name", "fps", "frames", "size"),
    [
        ("wan", 16, 81, (480, 832)), ("ltx", 25, 161, (512, 704)), ("cogvideox", 8, 49, (480, 720)),
        ("cogvideox-1.5", 16, 81, (768, 1360)), ("wan-2.2-5b", 24, 121, (704, 1280)), ("anyflow-far", 16, 81, (480, 832)),
    ],
)  # fmt: skip
def test_defaults_are_those_of_the_version(name: str, fps: int, frames: int, size: tuple[int, int]) -> None:
    config = describe(Choice(checkpoint=Checkpoint(folder=str(checkpoints.folder(name)))))
    assert (config.fps, config.grid.max_frames, (config.height, config.width)) == (fps, frames, size)


def test_ltx_is_told_the_rate_that_it_was_described_with_and_not_the_one_it_is_played_at() -> None:
    """As diffusers' pipeline is told by `frame_rate`."""
    slow = checkpoints.config("ltx", fps=12)
    latents = {fps: _clip(fps) for fps in (12, 25)}
    pipeline = diffusers.LTXPipeline.from_pretrained(checkpoints.folder("ltx"))
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        prompt="a dog", negative_prompt="", height=64, width=96, num_frames=9, frame_rate=12,
        num_inference_steps=3, guidance_scale=slow.guidance,
        generator=torch.Generator().manual_seed(7), max_sequence_length=128, output_type="latent",
    ).frames  # fmt: skip
    _, _, sampler = checkpoints.parts("ltx")
    expected = sampler.clean(theirs)  # type: ignore[attr-defined]  # a ClipSampler
    assert_rounds_alike(latents[12], expected, terms=128, sums=3 * 24)  # text tokens; steps, and products that follow one another in each
    assert np.abs(latents[12] - latents[25]).max() > 1e-3
    app = AppConfig.model_validate(
        {"model": {"folder": str(checkpoints.folder("ltx")), "height": 64, "width": 96, "frames": 9, "fps": 24}, "fps": 4}
    )
    served = app.preset()
    assert (served.fps, served.frame_rate) == (4, 24)  # type: ignore[attr-defined]  # a CheckpointConfig


def _clip(fps: int) -> np.ndarray:
    config = checkpoints.config("ltx", fps=fps)
    engine = EngineConfig(batch_buckets=(1,))
    (latents,) = make(Engine(family("ltx").parts.sampler(config, engine), config, engine), checkpoints.context("ltx", "a dog", 7))
    return latents


def test_a_session_of_one_frame_of_anyflow() -> None:
    """One chunk, after which nothing is remembered: there is no graph for it."""
    config, engine = checkpoints.config("anyflow-far", frames=1), EngineConfig(batch_buckets=(1, 2))
    warm = Engine(family("anyflow-far").parts.sampler(config, engine), config, engine)
    warm.warm_up()
    latents = make(warm, replace(checkpoints.context("anyflow-far", "a dog", 7), num_frames=1))
    assert [chunk.shape for chunk in latents] == [config.latent_shape(0)]
    assert config.grid.max_frames == 1
