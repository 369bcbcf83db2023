"""Small checkpoints with random weights, laid out as the real ones: what tests and `headrace models make-tiny` use in their place.

The same family gives the same bytes on the same libraries. Nothing is fetched: the tokenizer is made here, of bytes.
"""

from __future__ import annotations

from pathlib import Path

import torch

from model_core.families.checkpoints.checkpoint import write_checksums
from model_core.families.registry import FAMILIES, family_of_tiny

_SEED = 20261124


def make_tiny(name: str, folder: Path, folders: tuple[str, ...] = FAMILIES) -> str:
    """Write the small checkpoint of a family, or of a version of it, into `folder`, which must not exist or be empty.

    Returns:
        The digest to pin.

    Raises:
        KeyError: there is no such small checkpoint.
        FileExistsError: the folder holds something.
    """
    family = family_of_tiny(name, folders)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        family.make_tiny(name, folder)
    return write_checksums(folder)
