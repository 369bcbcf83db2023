"""Checkpoints into modules. Safetensors only, and only the file whose digest the preset pins."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from model_core.config import MillraceConfig
from model_core.errors import WeightsError
from model_core.nn.causal_dit import CausalDiT
from model_core.nn.enhancer import Enhancer
from model_core.nn.vae import VAE

FOLDER = Path(__file__).parent / "weights"
Module = TypeVar("Module", bound=nn.Module)


def load_vae(config: MillraceConfig, folder: Path = FOLDER) -> VAE:
    """The autoencoder in float32, frozen.

    Raises:
        WeightsError: the file is missing, not the one pinned, or does not fit the network.
    """
    return _load(VAE(config.vae), folder / (config.weights.shared_with or config.name) / "vae.safetensors", config.weights.vae_sha256)


def load_dit(config: MillraceConfig, folder: Path = FOLDER) -> CausalDiT:
    """The denoiser in float32, frozen.

    Raises:
        WeightsError: the file is missing, not the one pinned, or does not fit the network.
    """
    return _load(CausalDiT(config.dit), folder / config.name / "dit.safetensors", config.weights.dit_sha256)


def load_enhancer(config: MillraceConfig, folder: Path = FOLDER) -> Enhancer:
    """The enhancer in float32, frozen.

    Raises:
        WeightsError: the file is missing, not the one pinned, or does not fit the network.
    """
    return _load(Enhancer(), folder / (config.weights.shared_with or config.name) / "enhancer.safetensors", config.weights.enhancer_sha256)


def _load(module: Module, path: Path, sha256: str) -> Module:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        raise WeightsError(f"{path} has sha256 {digest}, pinned is {sha256}")
    try:
        module.load_state_dict({name: value.to(torch.float32) for name, value in load(data).items()})
    except SafetensorError as error:
        raise WeightsError(f"{path} is no safetensors file: {error}") from error
    except RuntimeError as error:  # names and shapes
        raise WeightsError(f"{path} does not fit the network: {error}") from error
    return module.eval().requires_grad_(requires_grad=False)
