"""Checkpoints that are not what they should be: each is refused with a sentence that names the file and what is wrong with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel, LTXVideoTransformer3DModel, WanTransformer3DModel
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from deployments.config.application import AppConfig
from model_core.errors import InvalidRequest, WeightsError
from model_core.families.checkpoints.checkpoint import CHECKSUMS, Checkpoint, write_checksums
from model_core.families.checkpoints.loading import load_module
from model_core.families.described import Choice, describe
from model_core.families.tiny import make_tiny
from service.checks import Catalogue, Limits, Validator
from service.orders import Doorway, Mode, Order, VideoRequest
from tests import checkpoints

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = tmp_path / "wan"
    shutil.copytree(checkpoints.folder("wan"), folder)
    (folder / CHECKSUMS).unlink()
    return folder


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    torch.save({}, folder / "transformer/diffusion_pytorch_model.bin")


def sharded(folder: Path) -> None:
    index = {"metadata": {}, "weight_map": {"a": "part-1.safetensors"}}
    (folder / "transformer/diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def cut(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:-100])


def garbled(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"\xff" * 64)


def eight_bits(folder: Path) -> None:
    save_file({"w": torch.zeros(4, dtype=torch.float8_e4m3fn)}, folder / WEIGHTS)


def a_tensor_less(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    del tensors["proj_out.bias"]
    save_file(tensors, folder / WEIGHTS)


def another_shape(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file(tensors | {"proj_out.bias": torch.zeros(3)}, folder / WEIGHTS)


def no_component(folder: Path) -> None:
    shutil.rmtree(folder / "transformer")


def changed(folder: Path) -> None:
    write_checksums(folder)
    save_file({name: tensor + 1 for name, tensor in load_file(folder / WEIGHTS).items()}, folder / WEIGHTS)


def unlisted(folder: Path) -> None:
    write_checksums(folder)
    (folder / "transformer/more.json").write_text("{}")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (pickled, "only pickled weights .* convert them to safetensors"),
        (sharded, r"part-1.safetensors is missing: .* names it"),
        (cut, "is cut or padded"),
        (garbled, "is no safetensors file"),
        (eight_bits, "holds F8_E4M3; only F32, BF16, F16 are loaded"),
        (a_tensor_less, "does not fit WanTransformer3DModel: missing: proj_out.bias"),
        (another_shape, "proj_out.bias"),
        (no_component, "transformer is missing"),
        (changed, "has sha256 .*, SHA256SUMS says"),
        (unlisted, "more.json is not listed"),
    ],
)
def test_what_is_not_as_it_should_be_is_refused(copy: Path, spoil: Callable[[Path], None], sentence: str) -> None:
    spoil(copy)
    with pytest.raises(WeightsError, match=sentence):
        load_module(Checkpoint(folder=str(copy)), "transformer", WanTransformer3DModel)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"folder": "/no/such/folder"}, "is no folder"),
        ({"folder": "owner/name"}, "pin `revision` to a full commit"),
        ({"folder": "owner/name", "revision": "main"}, "pin `revision` to a full commit of 40 hexadecimal digits; got 'main'"),
        ({"dtype": "int4"}, "dtype must be one of float32, bfloat16, float16; got 'int4'"),
        ({"sha256": "0" * 64}, "has sha256 .*, pinned is 0000"),
    ],
)
def test_a_checkpoint_that_is_not_there_or_not_the_one_pinned(given: dict[str, str], sentence: str) -> None:
    with pytest.raises(WeightsError, match=sentence):
        Checkpoint(**({"folder": str(checkpoints.folder("wan"))} | given)).path()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"family": "ltx-2"}, "family must be one of .*; got 'ltx-2'"),
        ({"height": 40}, "height must be a multiple of 16 for wan; got 40"),
        ({"frames": 8}, "frames must be 1 more than a multiple of 4 for wan; got 8"),
    ],
)
def test_a_choice_that_the_family_cannot_serve(given: dict[str, object], sentence: str) -> None:
    with pytest.raises(WeightsError, match=sentence):
        checkpoints.config("wan", **given)


@pytest.mark.parametrize(
    ("name", "kind"), [("wan", WanTransformer3DModel), ("ltx", LTXVideoTransformer3DModel), ("cogvideox", CogVideoXTransformer3DModel)]
)
def test_every_family_refuses_pickles_a_missing_shard_and_the_network_of_another(name: str, kind: type, tmp_path: Path) -> None:
    folder = tmp_path / name
    shutil.copytree(checkpoints.folder(name), folder)
    (folder / CHECKSUMS).unlink()
    sharded(folder)
    with pytest.raises(WeightsError, match=r"part-1.safetensors is missing: .* names it"):
        load_module(Checkpoint(folder=str(folder)), "transformer", kind)
    pickled(folder)
    with pytest.raises(WeightsError, match=r"only pickled weights \(diffusion_pytorch_model.bin\)"):
        load_module(Checkpoint(folder=str(folder)), "transformer", kind)
    with pytest.raises(WeightsError, match=f"vae is a 'AutoencoderKL.*'; expected a {kind.__name__}"):
        load_module(Checkpoint(folder=str(folder)), "vae", kind)


@pytest.mark.parametrize(
    ("name", "given", "sentence"),
    [
        ("ltx", {"height": 48}, "height must be a multiple of 32 for ltx; got 48"),
        ("ltx", {"frames": 12}, "frames must be 1 more than a multiple of 8 for ltx; got 12"),
        ("cogvideox", {"width": 40}, "width must be a multiple of 16 for cogvideox; got 40"),
        ("cogvideox", {"frames": 48}, "frames must be 1 more than a multiple of 8 for cogvideox; got 48"),
    ],
)
def test_sizes_and_lengths_that_another_family_has(name: str, given: dict[str, object], sentence: str) -> None:
    with pytest.raises(WeightsError, match=sentence):
        checkpoints.config(name, **given)


def test_weights_are_loaded_in_the_type_that_is_asked_for() -> None:
    folder = str(checkpoints.folder("ltx"))
    network = load_module(Checkpoint(folder=folder, dtype="bfloat16"), "transformer", LTXVideoTransformer3DModel)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.bfloat16}


def test_a_checkpoint_of_no_family_here(copy: Path) -> None:
    (copy / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(WeightsError, match="is a checkpoint of 'FluxPipeline', which is not any of"):
        describe(Choice(checkpoint=Checkpoint(folder=str(copy)), height=32, width=48))


def test_a_small_checkpoint_is_the_same_bytes_each_time_and_pinned_by_its_digest(tmp_path: Path) -> None:
    digest = make_tiny("wan", tmp_path / "again")
    first = checkpoints.folder("wan")
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert [(tmp_path / "again" / name).read_bytes() for name in files] == [(first / name).read_bytes() for name in files]
    assert Checkpoint(folder=str(first), sha256=digest).path() == first
    with pytest.raises(FileExistsError):
        make_tiny("wan", tmp_path / "again")


def test_a_deployment_may_name_a_checkpoint() -> None:
    config = AppConfig.model_validate({"model": {"folder": str(checkpoints.folder("wan")), "height": 32, "width": 48, "frames": 9}})
    model = config.preset()
    assert (model.name, model.family, model.grid.max_frames, model.num_steps) == ("wan", "wan", 9, 50)
    with pytest.raises(ValidationError, match="height must be a multiple of 16 for wan; got 40"):
        AppConfig.model_validate({"model": {"folder": str(checkpoints.folder("wan")), "height": 40, "width": 48}})
    tiny = {"folder": str(checkpoints.folder("wan")), "height": 32, "width": 48}
    with pytest.raises(ValueError, match=r"decoder.runtime.dtype must be that of the checkpoint, 'float32'; got 'bfloat16'"):
        AppConfig.model_validate({"model": tiny, "decoder": {"runtime": {"name": "cuda", "dtype": "bfloat16"}}})
    with pytest.raises(ValueError, match=r"engine.runtime.ranks must be 1 where model is a checkpoint; got 2"):
        AppConfig.model_validate({"model": tiny, "engine": {"runtime": {"ranks": 2}}})
    assert AppConfig.model_validate({"model": tiny, "engine": {"runtime": {"name": "cuda"}}}).preset().execution.denoiser.name == "cuda"


@pytest.mark.parametrize(("seconds", "frames"), [(0.5, 8), (9 / 16, 9)])
def test_a_clip_may_be_cut(seconds: float, frames: int) -> None:
    assert order(seconds).request.num_frames == frames


@pytest.mark.parametrize("seconds", [10 / 16, 60.0])
def test_more_than_a_clip_is_refused(seconds: float) -> None:
    with pytest.raises(InvalidRequest, match=r"spec.seconds: must be at most 0.5625, a clip of model wan; got"):
        order(seconds)


def order(seconds: float) -> Order:
    config = checkpoints.config("wan")
    validator = Validator(Catalogue({config.name: config}, config.name), Limits())
    request = VideoRequest(prompt="a red circle", seconds=seconds)
    return validator.order(request, Doorway(Mode.FILE, "spec."), "session", 7)
