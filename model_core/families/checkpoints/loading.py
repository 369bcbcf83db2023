"""Components of a checkpoint into modules of diffusers and transformers: verified first, then loaded from safetensors and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from torch import nn
from transformers.utils import logging as transformers_logging

from model_core.errors import RuntimeUnavailable, WeightsError
from model_core.families.checkpoints.checkpoint import Checkpoint
from model_core.families.checkpoints.shards import weights_of

_ALIGNMENT = 64  # bytes, of all that PyTorch allocates

diffusers_logging.disable_progress_bar()
diffusers_logging.set_verbosity_error()  # its pipelines warn of what they cut off a long prompt, and tell it: prompts are not for logs
transformers_logging.disable_progress_bar()


def load_module(checkpoint: Checkpoint, component: str, kind: Any) -> Any:
    """The component as a `kind`, a class with `from_pretrained`; frozen.

    Raises:
        WeightsError: see `Checkpoint.verified`; or it is another network; or tensors are missing, unknown, or of other shapes.
    """
    folder = checkpoint.verified(component)
    # diffusers would fill in another network's settings with the defaults of this one, which may be very large.
    if (named := checkpoint.settings(component).get("_class_name", kind.__name__)) != kind.__name__:
        raise WeightsError(f"{folder} is a {named!r}; expected a {kind.__name__}")
    weights = weights_of(folder)
    if not weights.files:
        raise WeightsError(f"{folder} holds no safetensors, and nothing else is loaded")
    dtype = getattr(torch, checkpoint.dtype)
    name = "torch_dtype" if kind.__module__.startswith("diffusers") else "dtype"
    try:
        module, report = kind.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True, variant=weights.variant or None, **{name: dtype}
        )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        raise WeightsError(f"{folder} cannot be loaded as {kind.__name__}: {error}") from error
    problems = {why: sorted(map(str, report.get(f"{why}_keys") or ())) for why in ("missing", "unexpected", "mismatched")}
    if any(problems.values()):
        raise WeightsError(f"{folder} does not fit {kind.__name__}: {told(problems)}")
    return aligned(module.eval().requires_grad_(requires_grad=False))


def aligned(module: nn.Module) -> nn.Module:
    """`module`, each of its tensors where PyTorch would have put it.

    Tensors that are read from safetensors lie where the file has them, at any multiple of 8 bytes. Kernels round by that, so equal weights
    in other files would give other bits.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.data_ptr() % _ALIGNMENT:
            tensor.data = tensor.data.clone()
    return module


def require(package: str, purpose: str) -> None:
    """Raises RuntimeUnavailable: a package is not installed which other libraries do without, and say nothing."""
    if find_spec(package) is None:
        raise RuntimeUnavailable(f"{package} is not installed: {purpose}")


def told(problems: Mapping[str, Sequence[str]]) -> str:
    """Names of tensors by what is wrong with them, in a sentence."""
    return "; ".join(f"{why}: {', '.join(names[:3])}, {len(names)} in all" for why, names in problems.items() if names)


def load_noise_schedule(checkpoint: Checkpoint, kind: Any) -> Any:
    """A diffusers scheduler of the class that the checkpoint names, which must be a `kind`."""
    import diffusers  # noqa: PLC0415 - its namespace, looked up by name below

    settings = checkpoint.settings("scheduler")
    named = getattr(diffusers, str(settings.get("_class_name")), None)
    if named is None or not issubclass(named, kind):
        raise WeightsError(f"{checkpoint.folder}/scheduler is a {settings.get('_class_name')!r}; expected a {kind}")
    return named.from_pretrained(checkpoint.verified("scheduler"), local_files_only=True)
