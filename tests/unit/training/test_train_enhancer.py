from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model_core.errors import WeightsError
from model_core.nn.enhancer import Enhancer
from model_core.presets import millrace_64
from model_core.quality.words import SIZE
from model_core.weights import load_enhancer
from training.train_enhancer import FRAMES, EnhancerTrainer, Options, export, half_steps, make_clips
from training.world import random_scene, render, scene_tensor, trajectory


@pytest.fixture
def trainer(tmp_path: Path) -> EnhancerTrainer:
    return EnhancerTrainer(tmp_path, Options(pool=4, batch=4, lr=8e-3))


def test_the_world_at_a_larger_size_is_the_same_world() -> None:
    rng = random.Random(1)
    scenes = scene_tensor([random_scene(rng, held_out=False) for _ in range(6)])[:, None].expand(-1, 2, -1)
    centres, never = torch.rand(6, 1, 2) * SIZE, torch.full((6,), 9)
    small = render(scenes, centres, never)
    for scale in (2, 4):
        large = render(scenes, centres, never, scale)
        assert large.shape[-2:] == (SIZE * scale, SIZE * scale)
        shrunk = torch.nn.functional.avg_pool2d(large.flatten(0, 1), scale).unflatten(0, (6, 1))
        assert (shrunk - small).abs().mean() < 0.005


def test_half_steps_are_the_trajectory_and_what_lies_between() -> None:
    scenes = scene_tensor([random_scene(random.Random(2), held_out=False)])[:, None].expand(-1, 2, -1)
    start, phase = torch.tensor([[30.0, 20.0]]), torch.tensor([0.5])
    found = half_steps(scenes, start, 4, phase)
    whole = trajectory(scenes, start, 5, torch.tensor([99]), phase)
    torch.testing.assert_close(found[:, ::2], whole[:, :4])
    torch.testing.assert_close(found[:, 1::2], (whole[:, :4] + whole[:, 1:]) / 2)


def test_an_untrained_network_repeats_pixels_and_takes_means() -> None:
    network = Enhancer()
    frames = torch.randint(256, (3, 8, 8, 3), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(network.enlarge_2(frames), frames.repeat_interleave(2, 1).repeat_interleave(2, 2))
        assert torch.equal(network.enlarge_4(frames), frames.repeat_interleave(4, 1).repeat_interleave(4, 2))
        doubled = network.doubled(frames[:1], frames)
    assert torch.equal(doubled[1::2], frames)
    mean = (frames[:-1].float() + frames[1:].float()) / 2
    assert (doubled[2::2].float() - mean).abs().max() <= 1.5


def test_on_one_batch_it_learns(trainer: EnhancerTrainer) -> None:
    batch = trainer.draw()
    before = trainer.learn(batch)
    for _ in range(20):
        after = trainer.learn(batch)
    assert all(after[name] > before[name] + 0.5 for name in before), (before, after)


def test_a_run_goes_on_where_it_was_and_its_weights_are_those_that_are_shipped_by_their_digest(
    trainer: EnhancerTrainer, tmp_path: Path
) -> None:
    trainer.learn(trainer.draw())
    trainer.run_state.save()
    again = EnhancerTrainer(tmp_path, Options(pool=4, batch=4))
    assert again.run_state.step == 1
    pinned = millrace_64()
    digest = export(tmp_path, tmp_path / pinned.name)
    loaded = load_enhancer(replace(pinned, weights=replace(pinned.weights, enhancer_sha256=digest)), tmp_path)
    shipped = loaded.state_dict()
    assert all(torch.equal(shipped[name], value.half().float()) for name, value in again.ema.state_dict().items())
    with pytest.raises(WeightsError, match="pinned is"):
        load_enhancer(pinned, tmp_path)


def test_clips_are_a_chunk_that_follows_another_one() -> None:
    clips = make_clips(2, 5, held_out=True)
    assert clips.decoded.shape == (2, FRAMES, 3, SIZE, SIZE)
    assert clips.centres.shape == (2, 2 * FRAMES, 2)
    rendered = render(clips.scenes, clips.centres[:, ::2], torch.full((2,), 10**6))
    assert (clips.decoded.float() / 255 - rendered).abs().mean() < 0.02, "the centres are those of the frames that were kept"
