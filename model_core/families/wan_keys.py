"""Weights of causal Wan checkpoints by the names of their authors, Wan's own, into diffusers' `WanTransformer3DModel`.

Self-Forcing, CausVid and LongLive publish pickles of `{"generator_ema": {"model.blocks.0...": tensor}}`, flat or nested. Once flattened and
saved as safetensors, with the `config.json` of a diffusers Wan transformer beside it, such a file is read as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from model_core.errors import WeightsError
from model_core.families.checkpoint import Checkpoint, shards
from model_core.families.loading import told

# Part of a name in the authors' layout, and in diffusers'.
TABLE = (
    ("text_embedding.0", "condition_embedder.text_embedder.linear_1"),
    ("text_embedding.2", "condition_embedder.text_embedder.linear_2"),
    ("time_embedding.0", "condition_embedder.time_embedder.linear_1"),
    ("time_embedding.2", "condition_embedder.time_embedder.linear_2"),
    ("time_projection.1", "condition_embedder.time_proj"),
    ("self_attn.o", "attn1.to_out.0"),
    ("cross_attn.o", "attn2.to_out.0"),
    *((f"{theirs}.{part}", f"{ours}.to_{part}") for theirs, ours in (("self_attn", "attn1"), ("cross_attn", "attn2")) for part in "qkv"),
    ("self_attn.norm", "attn1.norm"),
    ("cross_attn.norm", "attn2.norm"),
    ("ffn.0", "ffn.net.0.proj"),
    ("ffn.2", "ffn.net.2"),
    ("norm3", "norm2"),  # the only norm of a block with weights; diffusers counts the norms in another order
    ("head.head", "proj_out"),
    ("head.modulation", "scale_shift_table"),
    ("modulation", "scale_shift_table"),
)
_GENERATORS = ("generator_ema.", "generator.")  # the averaged weights are the ones to sample with
_WRAPPERS = ("_fsdp_wrapped_module.", "_orig_mod.", "model.")


def to_diffusers(name: str) -> str:
    """A name in Wan's layout, without prefix, in diffusers'; one that is in diffusers' already stays."""
    for theirs, ours in TABLE:
        found, count = re.subn(rf"(?<![^.]){re.escape(theirs)}(?=[._]|$)", ours, name)
        if count:
            return found
    return name


def to_wan(name: str) -> str:
    """The inverse."""
    in_block = name.startswith("blocks.")
    for theirs, ours in TABLE:
        if ours in name and not (in_block and theirs.startswith("head.")):
            return name.replace(ours, theirs)
    return name


def renamed(names: Iterable[str]) -> dict[str, str]:
    """Names in a file → names in diffusers' layout. Of several generators in one file the averaged one is taken."""
    names = list(names)
    for generator in _GENERATORS:
        if own := [name for name in names if name.startswith(generator)]:
            return {name: to_diffusers(_bare(name.removeprefix(generator))) for name in own}
    return {name: to_diffusers(_bare(name)) for name in names}


def _bare(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def load_transformer(checkpoint: Checkpoint, component: str = "transformer") -> Any:
    """The component as a frozen `WanTransformer3DModel`.

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
            ours: tensors[theirs].to(torch.float32 if kept & set(ours.split(".")) else dtype) for theirs, ours in renamed(tensors).items()
        }
        if expected != set(given):
            problems = {"missing": sorted(expected - set(given)), "unexpected": sorted(set(given) - expected)}
            raise WeightsError(f"{folder} does not fit {WanTransformer3DModel.__name__}: {told(problems)}")
        network.load_state_dict(given, assign=True)
        network.rope = torch.nn.Identity()  # its tables are on no device, and `model_core.nn.wan` makes its own
    except (TypeError, RuntimeError) as error:  # a setting that it does not know; shapes
        raise WeightsError(f"{folder} does not fit {WanTransformer3DModel.__name__}: {error}") from error
    return network.eval().requires_grad_(requires_grad=False)
