"""Settings of causal Wan checkpoints by their authors' names: what each does, and that none is rounded or left out of account."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from model_core.diffusion.flow_match import timesteps
from model_core.errors import WeightsError
from model_core.families.causal_wan.keys import load_transformer
from model_core.families.causal_wan.parts import CausalWanSampler
from model_core.families.common.config import Attention, CheckpointConfig
from model_core.families.wan.names import GENERATORS, renamed
from tests import checkpoints

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
SELF_FORCING, CAUSVID = [1000, 750, 500, 250], [1000, 757, 522, 0]


def described(into: Path, *, frames: int = 0, steps: int = 0, **settings: Any) -> CheckpointConfig:
    folder = into / "causal-wan" if (into / "causal-wan").exists() else checkpoints.copied("causal-wan", into)
    index = json.loads((folder / "model_index.json").read_text())
    kept = {name: value for name, value in index.items() if name == "_class_name" or (isinstance(value, list) and value[0] != 1000)}
    (folder / "model_index.json").write_text(json.dumps(kept | settings))
    return checkpoints.config("causal-wan", folder, frames=frames, steps=steps)


def test_the_settings_that_are_published(tmp_path: Path) -> None:
    """Of Self-Forcing (all of a session), and of LongLive, nested as in its files."""
    shared: dict[str, Any] = {
        "denoising_step_list": SELF_FORCING,
        "warp_denoising_step": True,
        "num_frame_per_block": 3,
        "context_noise": 0,
    }
    whole = described(tmp_path, **shared, local_attn_size=-1, model_kwargs={"timestep_shift": 5.0}, frames=81)
    assert (whole.grid.chunks, whole.attention.window, whole.context_chunks) == (7, 0, 7)
    nested = {"local_attn_size": 12, "timestep_shift": 5.0, "sink_size": 3}
    rolling = described(tmp_path, **shared, model_kwargs=nested, global_sink=False, use_ema=True, causal=True, i2v=False)
    assert (rolling.grid.chunks, rolling.attention.window, rolling.attention.sink) == (None, 2, 1)
    assert (rolling.num_steps, rolling.max_steps) == (4, 4)
    assert rolling.attention.listed(4) == tuple((1000 * share, share) for share in timesteps(4, 5.0)[:-1])
    assert rolling.attention.listed(2) == tuple((1000 * share, share) for share in timesteps(2, 5.0)[:-1])


def test_times_that_are_not_warped_are_told_as_they_are_with_the_nearest_noise_of_the_table(tmp_path: Path) -> None:
    settled = described(tmp_path, denoising_step_list=CAUSVID, warp_denoising_step=False, timestep_shift=8.0)
    told, shares = zip(*settled.attention.steps, strict=True)
    assert told == (1000.0, 757.0, 522.0)
    uniform = torch.linspace(1, 0, 1001)[:-1]
    table = 8 * uniform / (1 + 7 * uniform)  # as the authors' scheduler makes it
    expected = [table[(1000 * table - time).abs().argmin()].item() for time in told]
    assert shares == pytest.approx(expected, abs=1e-7)
    assert shares[1] != 0.757
    assert settled.num_steps == 3


def test_the_network_is_told_the_listed_times_and_the_noise_of_the_context(tmp_path: Path) -> None:
    class Sampler(CausalWanSampler):
        def __init__(self, config: CheckpointConfig) -> None:
            self.config = config

    settled = described(tmp_path, denoising_step_list=CAUSVID, warp_denoising_step=False, timestep_shift=8.0, context_noise=20)
    sampler = Sampler(settled)
    times = sampler.times(3)
    assert times.tolist() == [share for _, share in settled.attention.steps] + [0.0]
    assert sampler.modulated(times, 3)[0].tolist() == [1000, 757, 522, 20]
    few = sampler.times(2)
    assert sampler.modulated(torch.nn.functional.pad(few, (0, 1)), 2)[0].tolist() == [1000, 757, 0, 20]
    plain = Sampler(described(tmp_path))
    assert plain.times(4).tolist() == list(timesteps(4, 5.0))
    padded = torch.nn.functional.pad(plain.times(2), (0, 98))
    assert plain.modulated(padded, 2)[0].tolist() == [1000.0, *(1000 * padded[1:]).float().tolist()]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"num_frame_per_block": 0}, "num_frame_per_block in model_index.json must be a whole number of at least 1; got 0"),
    ({"num_frame_per_block": 3.0}, "num_frame_per_block .* got 3.0"),
    ({"num_frame_per_block": True}, "num_frame_per_block .* got True"),
    ({"num_frame_per_block": 4}, "local_attn_size in model_index.json must be given where num_frame_per_block is 4"),
    ({"local_attn_size": -1}, "local_attn_size is -1 in model_index.json: .*frames must say how long; got 0"),
    ({"local_attn_size": -2}, "local_attn_size .* got -2"),
    ({"local_attn_size": 13}, "local_attn_size .* a multiple of 3, .*; got 13"),
    ({"local_attn_size": 12, "sink_size": 1}, "sink_size .* a multiple of 3, .*; got 1"),
    ({"sink_size": 4}, "sink_size .* a multiple of 3, .*; got 4"),
    ({"local_attn_size": 6, "sink_size": 3}, "local_attn_size must leave room"),
    ({"timestep_shift": 0}, "timestep_shift .* must be above 0; got 0"),
    ({"timestep_shift": "5"}, "timestep_shift .* must be a number; got '5'"),
    ({"context_noise": -1}, "context_noise .* got -1"),
    ({"context_noise": 1000}, "context_noise .* below 1000; got 1000"),
    ({"denoising_step_list": SELF_FORCING}, "warp_denoising_step .* must be true .* or false .*; got None"),
    ({"denoising_step_list": [750, 500], "warp_denoising_step": True}, r"denoising_step_list .* fall from 1000 .*; got \[750, 500\]"),
    ({"denoising_step_list": [1000, 500, 750], "warp_denoising_step": True}, "denoising_step_list .* fall from 1000"),
    ({"denoising_step_list": [1000, 0, 0], "warp_denoising_step": True}, "denoising_step_list .* fall from 1000"),
    ({"denoising_step_list": [], "warp_denoising_step": True}, "denoising_step_list .* fall from 1000"),
    ({"denoising_step_list": [1000, 500.5], "warp_denoising_step": False}, "denoising_step_list .* a list of whole numbers"),
    ({"denoising_step_list": "1000", "warp_denoising_step": False}, "denoising_step_list .* a list of whole numbers"),
    ({"warp_denoising_step": False}, "warp_denoising_step .* where there is no denoising_step_list; got False"),
    ({"warp_denoising_step": 1}, "warp_denoising_step .* true or false; got 1"),
    ({"independent_first_frame": True}, "independent_first_frame .* must be False or left out, because all chunks have one size; got True"),
    ({"global_sink": True}, "global_sink .* must be False"),
    ({"i2v": True}, "i2v .* must be False"),
    ({"causal": False}, "causal .* must be True"),
    ({"boundary_ratio": 0.9}, "boundary_ratio .* must be None"),
    ({"model_kwargs": {"sink_size": 3}, "sink_size": 6}, "has sink_size twice: 6, and 3 in model_kwargs"),
    ({"model_kwargs": {"window": 3}}, "has model_kwargs.window, which causal-wan does not know"),
    ({"guidance_scale": 3.0}, "has guidance_scale, a setting that the family does not know"),
    ({"denoising_step_list": SELF_FORCING, "warp_denoising_step": True, "steps": 5}, "steps must be at most 4"),
    ({"use_ema": False}, r"use_ema is False, so generator.\* must be there; there is generator_ema.\*"),
]


@pytest.mark.parametrize(("settings", "sentence"), REFUSED)
def test_what_cannot_be_honoured_is_refused_by_its_name(settings: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=sentence):
        described(tmp_path, **settings)


def test_a_list_of_steps_may_be_taken_in_part() -> None:
    attention = Attention(steps=tuple((float(time), time / 1000) for time in (1000, 800, 600, 400, 200)))
    assert [time for time, _ in attention.listed(5)] == [1000, 800, 600, 400, 200]
    assert [time for time, _ in attention.listed(3)] == [1000, 800, 400]
    assert [time for time, _ in attention.listed(1)] == [1000]
    assert Attention().listed(3) == ()


@pytest.mark.parametrize("name", ["more.safetensors", "a.safetensors"])  # after the other file, and before it
@pytest.mark.parametrize("prefix", ["", "generator_ema.model.", "model.diffusion_model."])
def test_weights_of_two_checkpoints_in_one_folder_are_refused(prefix: str, name: str, tmp_path: Path) -> None:
    """Such as those of the plain Wan that the folder was copied from."""
    folder = checkpoints.copied("causal-wan", tmp_path)
    held = load_file(folder / WEIGHTS)
    other = {prefix + tensor.removeprefix(f"{GENERATORS[True]}model."): value for tensor, value in held.items()}
    save_file(other, folder / "transformer" / name)
    with pytest.raises(WeightsError, match="nothing says which is meant"):
        checkpoints.config("causal-wan", folder)


def test_of_two_generators_the_one_that_use_ema_names_is_taken(tmp_path: Path) -> None:
    settled = described(tmp_path)
    folder = settled.checkpoint.path()
    averaged = load_file(folder / WEIGHTS)
    plain = {name.replace("generator_ema", "generator"): value + 1 for name, value in averaged.items()}
    save_file(averaged | plain | {"critic.model.x": torch.zeros(1)}, folder / WEIGHTS)
    for use_ema, added in ((None, 0), (True, 0), (False, 1)):
        settled = described(tmp_path, use_ema=use_ema)
        network = load_transformer(settled.checkpoint, averaged=settled.attention.averaged)
        assert torch.equal(network.proj_out.bias, averaged["generator_ema.model.head.head.bias"] + added)


def test_names_that_become_one_are_refused() -> None:
    with pytest.raises(WeightsError, match="are both proj_out"):
        renamed(["model.head.head.bias", "proj_out.bias"])
    assert renamed(["model.diffusion_model.head.head.bias"]) == {"model.diffusion_model.head.head.bias": "proj_out.bias"}
