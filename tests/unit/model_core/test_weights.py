from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from model_core.config import MillraceConfig
from model_core.errors import WeightsError
from model_core.nn.vae import VAE
from model_core.presets import millrace_64
from model_core.weights import FOLDER, load_dit, load_vae
from tests.models import SMALL_DIT

CONFIG = millrace_64()
Loader = Callable[[MillraceConfig, Path], object]
LOADERS: dict[str, Loader] = {"vae": load_vae, "dit": load_dit}


def placed(folder: Path, name: str, data: bytes, *, pinned: bool = True) -> tuple[Path, MillraceConfig]:
    """`data` as the checkpoint `name` of the preset, and a preset that pins it if `pinned`."""
    path = folder / CONFIG.name / f"{name}.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    if not pinned:
        return path, CONFIG
    weights = replace(CONFIG.weights, vae_sha256=digest) if name == "vae" else replace(CONFIG.weights, dit_sha256=digest)
    return path, replace(CONFIG, weights=weights)


def shipped(name: str) -> bytes:
    return (FOLDER / CONFIG.name / f"{name}.safetensors").read_bytes()


@pytest.mark.parametrize("name", LOADERS)
def test_a_missing_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsError, match=rf"cannot read {tmp_path}/millrace-64/{name}\.safetensors: No such file"):
        LOADERS[name](CONFIG, tmp_path)


@pytest.mark.parametrize("name", LOADERS)
def test_one_flipped_bit(tmp_path: Path, name: str) -> None:
    data = bytearray(shipped(name))
    data[-1] ^= 1
    path, config = placed(tmp_path, name, bytes(data), pinned=False)
    with pytest.raises(WeightsError, match=rf"{path} has sha256 {hashlib.sha256(data).hexdigest()}, pinned is "):
        LOADERS[name](config, tmp_path)


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("data", [b"", b"no weights", b"\xff" * 64, "cut short"])
def test_a_pinned_file_that_is_no_checkpoint(tmp_path: Path, name: str, data: bytes | str) -> None:
    path, config = placed(tmp_path, name, data if isinstance(data, bytes) else shipped(name)[:-100])
    with pytest.raises(WeightsError, match=rf"{path} is no safetensors file"):
        LOADERS[name](config, tmp_path)


def test_another_shape(tmp_path: Path) -> None:
    path, config = placed(tmp_path, "dit", shipped("dit"))
    with pytest.raises(WeightsError, match=rf"(?s){path} does not fit the network: .*size mismatch for position"):
        load_dit(replace(config, dit=replace(CONFIG.dit, latent_frames=4)), tmp_path)
    with pytest.raises(WeightsError, match=rf"(?s){path} does not fit the network: .*Unexpected key"):
        load_dit(replace(config, dit=SMALL_DIT), tmp_path)


@pytest.mark.parametrize(("change", "complaint"), [("drop", "Missing key"), ("add", "Unexpected key")])
def test_other_names(tmp_path: Path, change: str, complaint: str) -> None:
    tensors = load(shipped("vae"))
    if change == "drop":
        del tensors["latent_mean"]
    else:
        tensors["more"] = torch.zeros(1)
    path, config = placed(tmp_path, "vae", save(tensors))
    with pytest.raises(WeightsError, match=rf"(?s){path} does not fit the network: .*{complaint}"):
        load_vae(config, tmp_path)


def test_what_is_shipped_loads_in_float32_and_frozen() -> None:
    for module in (load_vae(CONFIG), load_dit(CONFIG)):
        assert not module.training
        assert all(p.dtype == torch.float32 and not p.requires_grad and p.isfinite().all() for p in module.parameters())


def test_weights_are_the_files_and_not_the_initialisation() -> None:
    assert torch.equal(load_vae(CONFIG).latent_mean, load(shipped("vae"))["latent_mean"].float())
    assert not torch.equal(load_vae(CONFIG).latent_mean, VAE(CONFIG.vae).latent_mean)
