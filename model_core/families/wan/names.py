"""Names of tensors in Wan checkpoints: those of its authors, and those of diffusers. Without torch.

Self-Forcing, CausVid and LongLive publish pickles of `{"generator_ema": {"model.blocks.0...": tensor}}`, flat or nested; others repack
them with a prefix of their own. Once flattened and saved as safetensors, such names are read as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from model_core.errors import WeightsError

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
GENERATORS = {True: "generator_ema.", False: "generator."}  # by whether weights are averaged
_TEACHERS = ("critic.", "fake_score.", "real_score.", "discriminator.")  # what a generator was trained with, in the same file
_WRAPPERS = ("_fsdp_wrapped_module.", "_orig_mod.", "diffusion_model.", "model.")


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


def hint(name: str, blocks: str) -> str:
    """What is said of a tensor that a network does not have, if the name is one of Wan's authors; else nothing.

    `blocks` is what names of the network's blocks begin with: a name with something before it is a repack's.
    """
    if name.startswith(tuple(GENERATORS.values())):
        return f"unexpected: {name}, as Self-Forcing and its like name tensors: a causal Wan needs `family: causal-wan`"
    if (blocks and f".{blocks}" in name) or to_diffusers(name) == name:
        return ""
    return f"unexpected: {name}, a name of Wan's authors; a causal Wan needs `family: causal-wan`, others diffusers' own layout"


def renamed(names: Iterable[str], *, averaged: bool | None = None) -> dict[str, str]:
    """Names in a checkpoint → names in diffusers' layout.

    Args:
        names: of all its tensors.
        averaged: which of two generators is taken; None: the averaged one, where there are two.

    Raises:
        WeightsError: the generator that is wanted is not there, other tensors lie beside it, or two are of one name.
    """
    names = list(names)
    there = {which: prefix for which, prefix in GENERATORS.items() if any(name.startswith(prefix) for name in names)}
    if averaged is not None and there and averaged not in there:
        raise WeightsError(f"use_ema is {averaged}, so {GENERATORS[averaged]}* must be there; there is {next(iter(there.values()))}*")
    prefix = there[averaged] if averaged in there else next(iter(there.values()), "")
    known = (*GENERATORS.values(), *_TEACHERS)
    if prefix and (beside := [name for name in names if not name.startswith(known)]):
        raise WeightsError(f"{beside[0]} lies beside {prefix}*: the weights of two checkpoints, and nothing says which is meant")
    found: dict[str, str] = {}
    for name in names:
        if name.startswith(prefix):
            ours = to_diffusers(_bare(name.removeprefix(prefix)))
            if ours in found:
                raise WeightsError(f"{found[ours]} and {name} are both {ours}, and nothing says which is meant")
            found[ours] = name
    return {name: ours for ours, name in found.items()}


def _bare(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name
