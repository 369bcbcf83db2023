"""The world of walls and its training: shapes go as they are told and stop at walls, the judge tells, and a killed run goes on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model_core.acts import Keys
from model_core.nn.causal_dit import CausalDiT
from model_core.nn.vae import VAE
from model_core.presets import millrace_64, millrace_64_world
from model_core.quality.detect import track
from model_core.quality.words import MOTIONS, SIZE
from tests.unit.training.test_training import CPU, TINY, embed
from training.evaluate_world import KINDS, WorldEvaluator
from training.train_world import Options, WorldTrainer, begin
from training.walls import KEYS, PACE, caption, film, headings_of, key_sequence, multi_hot, random_scene, room, walk
from training.world import centres_of_screen, scene_tensor

WORLD = replace(TINY, name=millrace_64_world().name, dit=replace(TINY.dit, keys=4))
OPTIONS = Options(minutes=60, batch=2, chunks=3, pool=4, captions=20, tests=2, lr=1e-2, own_context=0.0)
N = millrace_64().frames_per_chunk


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def scenes(count: int, seed: int = 1) -> Tensor:
    rng = random.Random(seed)
    return scene_tensor([random_scene(rng, held_out=False) for _ in range(count)])


def test_a_shape_goes_as_it_is_told_one_pace_a_frame() -> None:
    table = scenes(4)
    headings = headings_of([[("up",)], [("down",)], [("left",)], [()]])
    path = walk(table[:, None], centres_of_screen(4), headings, N)
    assert path.shape == (4, N, 2)
    assert torch.equal(path[:, 0], centres_of_screen(4)), "the first frame shows the start"
    way = path[:, -1] - path[:, 0]
    assert torch.allclose(way / ((N - 1) * PACE), torch.tensor([[-1.0, 0], [1, 0], [0, -1], [0, 0]]), atol=1e-5)


def test_a_shape_stops_where_it_touches_the_wall_and_is_drawn_whole() -> None:
    table = scenes(32, seed=2)
    headings = headings_of([[("down", "right")] * 8] * 32)
    path = walk(table[:, None].expand(-1, 8, -1), centres_of_screen(32), headings, N)
    low, high = room(table)
    assert torch.allclose(path[:, -1], high)
    assert (low < high).all()
    # But for the tip of a star, less than a pixel of it is on the other side: rows and columns after the first are the ground's.
    frames = film(table, path[:, -1:])[:, 0]
    ground = film(table, torch.full((32, 1, 2), SIZE / 2))[:, 0]
    assert (frames[..., 1:3, :] - ground[..., 1:3, :]).abs().max() < 0.02
    assert (frames[..., 1:3] - ground[..., 1:3]).abs().max() < 0.02
    assert (frames[..., -2:] - ground[..., -2:]).abs().amax((1, 2, 3)).min() > 0.02, "and each reaches to the wall"


def test_captions_say_nothing_of_motion_and_keys_come_in_all_kinds() -> None:
    rng = random.Random(4)
    drawn = [random_scene(rng, held_out=True) for _ in range(50)]
    assert {MOTIONS[scene.motion] for scene in drawn} == {"still"}
    assert all(scene.held_out() for scene in drawn)
    assert not any("moving" in caption(scene, rng) for scene in drawn)
    keys = key_sequence(400, rng)
    assert set(KEYS) < set(keys)
    assert multi_hot([[("up", "down", "left")]]).tolist() == [[[0.0, 0.0, 1.0, 0.0]]]


class Drawn(WorldEvaluator):
    """The judge, over frames that a test draws."""

    def drawn(self, keys: list[list[Keys]]) -> Tensor:
        """What the renderer draws of other keys than the judge is told."""
        told, self.keys = self.keys, keys
        frames = self.truth(range(self.count))
        self.keys = told
        return frames


def judge(chunks: int = 8) -> Drawn:
    return Drawn(WORLD, VAE(WORLD.vae).eval(), CausalDiT(WORLD.dit).eval(), embed, 12, chunks)


def test_the_judge_finds_all_of_the_renderers_chunks_right_and_knows_of_all_kinds() -> None:
    evaluator = judge()
    shares = evaluator.shares(evaluator.truth)
    assert {kind: share.value for kind, share in shares.items()} == dict.fromkeys((*KINDS, "looks"), 1.0)
    assert min(shares[kind].count for kind in KINDS) >= 8


def test_the_judge_finds_chunks_wrong_that_go_elsewhere_or_through_the_wall() -> None:
    evaluator = judge()
    still = evaluator.judge(evaluator.drawn([[()] * 8] * 12), range(12))
    assert not still["free"].any(), "it was told to move"
    assert still["rest"].all()
    other: dict[Keys, Keys] = {("up",): ("down",), ("down",): ("up",), ("left",): ("right",), ("right",): ("left",)}
    turned = evaluator.judge(evaluator.drawn([[other.get(keys, keys) for keys in row] for row in evaluator.keys]), range(12))
    assert turned["free"].float().mean() < 0.3
    evaluator.keys = [[("right",)] * 8] * 12
    table = scene_tensor(evaluator.scenes)
    through = centres_of_screen(12)[:, None] + torch.arange(8 * N)[None, :, None] * torch.tensor([0.0, PACE])
    ghost = evaluator.judge((film(table, through) * 255).round().to(torch.uint8), range(12))
    assert ghost["walls"].float().mean() < 0.35, "it went on, and came back on the other side"
    assert track(film(table, through)).shape == (12, 8 * N, 2)


def test_a_network_begins_as_the_one_without_keys_where_none_is_held() -> None:
    torch.manual_seed(0)
    before = CausalDiT(TINY.dit)
    model = begin(WORLD, before, embed)
    state = model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in before.state_dict().items())
    assert state["keys"].abs().sum() > 0


def trainer(out: Path, last_step: int | None = None, lr: float = 1e-2) -> WorldTrainer:
    torch.manual_seed(3)
    vae, before = VAE(WORLD.vae).eval().requires_grad_(requires_grad=False), CausalDiT(TINY.dit)
    return WorldTrainer(out, CPU, replace(OPTIONS, last_step=last_step, lr=lr), before, vae, WORLD, embed)


def test_the_gate_lets_through_what_learns_and_stops_what_does_not(tmp_path: Path) -> None:
    before, after = trainer(tmp_path / "learns").gate()
    assert after < before
    with pytest.raises(RuntimeError, match="steps on one batch must bring its loss below 90%"):
        trainer(tmp_path / "does not", lr=0.0).gate()


def test_a_run_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    first = trainer(tmp_path, last_step=2)
    frozen = first.model.state_dict()["text_in.weight"].clone()
    first.run()
    again = trainer(tmp_path, last_step=3)
    assert again.run_state.step == 2
    assert torch.equal(again.model.state_dict()["keys"], first.model.state_dict()["keys"])
    assert torch.equal(again.model.state_dict()["text_in.weight"], frozen), "text layers stay as they are"
    again.run()
    assert again.run_state.step == 3
