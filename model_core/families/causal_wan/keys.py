"""Weights of causal Wan checkpoints by the names of their authors, Wan's own, into diffusers' `WanTransformer3DModel`.

The `config.json` beside them is that of a diffusers Wan transformer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from model_core.errors import WeightsError
from model_core.families.checkpoints.checkpoint import Checkpoint, shards
from model_core.families.checkpoints.loading import aligned, told
from model_core.families.wan.names import renamed, to_diffusers, to_wan

__all__ = ["load_transformer", "renamed", "to_diffusers", "to_wan"]


def load_transformer(checkpoint: Checkpoint, component: str = "transformer", *, averaged: bool | None = None) -> Any:
    """The component as a frozen `WanTransformer3DModel`. For `averaged` see `renamed`.

    Raises:
        WeightsError: see `Checkpoint.verified`; or tensors are missing, unknown, or of other shapes.
    """
    folder = checkpoint.verified(component)
    dtype = getattr(torch, checkpoint.dtype)
    try:
        files = [load_file(path) for path in shards(folder)]
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{folder} cannot be read: {error}") from error
    tensors: Mapping[str, Tensor] = {name: tensor for held in files for name, tensor in held.items()}
    settings = {name: value for name, value in checkpoint.settings(component).items() if not name.startswith("_")}
    try:
        with torch.device("meta"):
            network: Any = WanTransformer3DModel(**settings)
        expected = set(network.state_dict())
        kept = set(network._keep_in_fp32_modules)  # noqa: SLF001  what `from_pretrained` goes by
        given = {
            ours: tensors[theirs].to(torch.float32 if kept & set(ours.split(".")) else dtype)
            for theirs, ours in renamed(tensors, averaged=averaged).items()
        }
        if expected != set(given):
            problems = {"missing": sorted(expected - set(given)), "unexpected": sorted(set(given) - expected)}
            raise WeightsError(f"{folder} does not fit {WanTransformer3DModel.__name__}: {told(problems)}")
        network.load_state_dict(given, assign=True)
        network.rope = torch.nn.Identity()  # its tables are on no device, and `model_core.nn.wan` makes its own
    except (TypeError, RuntimeError) as error:  # a setting that it does not know; shapes
        raise WeightsError(f"{folder} does not fit {WanTransformer3DModel.__name__}: {error}") from error
    return aligned(network.eval().requires_grad_(requires_grad=False))
