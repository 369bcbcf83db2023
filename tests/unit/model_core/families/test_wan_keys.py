"""Causal Wan checkpoints as their authors name the tensors: read by a table, which is checked against diffusers' own converter."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from safetensors.torch import load_file, save_file
from torch import Tensor

from model_core.errors import WeightsError
from model_core.families.causal_wan.keys import load_transformer, renamed, to_diffusers, to_wan
from model_core.families.checkpoints.checkpoint import CHECKSUMS, Checkpoint, write_checksums
from model_core.families.described import Choice, describe
from model_core.families.tiny import make_tiny
from tests import checkpoints

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
PREFIX = "generator_ema.model."


def tensors() -> dict[str, Tensor]:
    return load_file(checkpoints.folder("causal-wan") / WEIGHTS)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = tmp_path / "causal-wan"
    shutil.copytree(checkpoints.folder("causal-wan"), folder)
    (folder / CHECKSUMS).unlink()
    return folder


def test_the_table_is_diffusers_own() -> None:
    theirs: dict[str, Tensor] = convert_wan_transformer_to_diffusers(
        {name.removeprefix(PREFIX): value for name, value in tensors().items()}
    )
    network = load_transformer(checkpoints.config("causal-wan").checkpoint)
    assert set(theirs) == set(network.state_dict())
    assert all(torch.equal(value, theirs[name]) for name, value in network.state_dict().items())
    assert [to_diffusers(to_wan(name)) for name in theirs] == list(theirs)
    assert [to_diffusers(name) for name in theirs] == list(theirs)  # a name that is diffusers' already stays


def test_averaged_weights_are_taken_and_wrappers_left_out() -> None:
    names = ["generator.model.head.head.bias", "generator_ema.model._fsdp_wrapped_module.head.head.bias", "critic.model.head.head.bias"]
    assert renamed(names) == {names[1]: "proj_out.bias"}
    assert renamed(names[:1]) == {names[0]: "proj_out.bias"}
    assert renamed(["blocks.0.cross_attn.norm_k.weight"]) == {"blocks.0.cross_attn.norm_k.weight": "blocks.0.attn2.norm_k.weight"}


@pytest.mark.parametrize("prefix", ["", "model.", "generator.model."])
def test_all_ways_to_publish_them_give_one_network(prefix: str, copy: Path) -> None:
    save_file({prefix + name.removeprefix(PREFIX): value for name, value in tensors().items()}, copy / WEIGHTS)
    network, expected = load_transformer(Checkpoint(folder=str(copy))), load_transformer(checkpoints.config("causal-wan").checkpoint)
    assert all(torch.equal(value, expected.state_dict()[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (
            lambda t: {n: v for n, v in t.items() if not n.endswith("head.head.bias")},
            "does not fit WanTransformer3DModel: missing: proj_out.bias",
        ),
        (lambda t: t | {PREFIX + "img_emb.proj.0.weight": torch.zeros(2)}, "unexpected: img_emb.proj.0.weight"),
        (lambda t: t | {PREFIX + "head.head.bias": torch.zeros(3)}, "(?s)does not fit WanTransformer3DModel: .*proj_out.bias"),
        (lambda _: {"w": torch.zeros(2, dtype=torch.float8_e4m3fn)}, "holds F8_E4M3"),
    ],
)
def test_weights_of_another_network_are_refused(spoil: Callable[[dict[str, Tensor]], dict[str, Tensor]], sentence: str, copy: Path) -> None:
    save_file(spoil(tensors()), copy / WEIGHTS)
    with pytest.raises(WeightsError, match=sentence):
        load_transformer(Checkpoint(folder=str(copy)))


def test_pickled_weights_and_a_setting_that_no_wan_has_are_refused(copy: Path) -> None:
    settings = json.loads((copy / "transformer/config.json").read_text())
    (copy / "transformer/config.json").write_text(json.dumps(settings | {"colour": "red"}))
    with pytest.raises(WeightsError, match="colour"):
        load_transformer(Checkpoint(folder=str(copy)))
    (copy / WEIGHTS).rename(copy / "transformer/self_forcing_dmd.pt")
    with pytest.raises(WeightsError, match=r"only pickled weights .* convert them to safetensors"):
        load_transformer(Checkpoint(folder=str(copy)))


def index(folder: Path, **settings: Any) -> None:
    kept = {name: value for name, value in json.loads((folder / "model_index.json").read_text()).items() if isinstance(value, list)}
    (folder / "model_index.json").write_text(json.dumps(kept | settings))


def test_a_wan_folder_with_another_transformer_is_causal_where_the_deployment_says_so(copy: Path) -> None:
    index(copy, _class_name="WanPipeline")
    choice: dict[str, Any] = {"checkpoint": Checkpoint(folder=str(copy)), "height": 32, "width": 48}
    with pytest.raises(WeightsError, match=r"unexpected: generator_ema\.model.* a causal Wan needs `family: causal-wan`"):
        describe(Choice(**choice))
    config = describe(Choice(**choice, family="causal-wan"))
    assert (config.family, config.grid.chunks, config.frames_per_chunk, config.num_steps) == ("causal-wan", None, 12, 4)
    seen = config.attention
    assert (seen.window, seen.sink, seen.shift, config.context_chunks) == (6, 0, 5.0, 12)  # of Self-Forcing: 21 latent frames
    bounded = describe(Choice(**choice, family="causal-wan", frames=81))
    assert (bounded.grid.chunks, bounded.context_chunks, bounded.attention.window, bounded.attention.renewal) == (7, 7, 0, 0)


@pytest.mark.parametrize(
    ("settings", "choice", "sentence"),
    [
        ({"local_attn_size": 3}, {}, "local_attn_size must leave room"),
        ({"local_attn_size": 9, "sink_size": 6}, {}, "local_attn_size must leave room"),
        ({}, {"guidance": 3.0}, "guidance must be 1 for causal-wan, .*; got 3"),
        ({}, {"frames": 80}, "frames must be 1 more than a multiple of 4 for causal-wan; got 80"),
        ({}, {"height": 40}, "height must be a multiple of 16 for causal-wan; got 40"),
    ],
)
def test_settings_that_cannot_be_served(settings: dict[str, int], choice: dict[str, Any], sentence: str, copy: Path) -> None:
    index(copy, _class_name="CausalWanPipeline", **settings)
    given: dict[str, Any] = {"checkpoint": Checkpoint(folder=str(copy)), "height": 32, "width": 48} | choice
    with pytest.raises(WeightsError, match=sentence):
        describe(Choice(**given))


@pytest.mark.parametrize("name", ["anyflow-far", "causal-wan"])
def test_a_small_checkpoint_is_the_same_bytes_each_time(name: str, tmp_path: Path) -> None:
    digest = make_tiny(name, tmp_path / "again")
    assert Checkpoint(folder=str(checkpoints.folder(name)), sha256=digest).path() == checkpoints.folder(name)
    assert write_checksums(tmp_path / "again") == digest
