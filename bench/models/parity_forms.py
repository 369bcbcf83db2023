"""Compares the forms in which checkpoints are published and kept with the plain one: `python -m bench.models.parity_forms [FAMILY ...]`.

Each form holds the same model, so what is made must be equal bit for bit. 0 is equal; otherwise it is the largest difference, of latents
or of frames in levels of 255.

    shards     large components in two files and an index
    variant    every component's weights named as a variant, `fp16`
    links      every file a link to a blob, as the hub's cache keeps it
    halves     weights stored in bfloat16, against the same numbers in float32
    published  a `spiece.model` alone, shards and links at once, against a plain folder with such a tokenizer
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from bench.models.parity_sequences import OURS, asked, configuration
from model_core.config import EngineConfig
from model_core.families.checkpoints.checkpoint import CHECKSUMS, shards
from model_core.families.checkpoints.forms import as_published, as_variant, in_halves, in_shards, linked, with_pieces
from model_core.families.registry import tiny_checkpoints
from model_core.families.tiny import make_tiny
from model_core.local import LocalPipeline
from model_core.types import FrameChunk

ENGINE = EngineConfig(slots=1, batch_buckets=(1,))
LARGE = ("text_encoder", "transformer", "transformer_2")

Change = Callable[[Path], None]
Made = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Form:
    """`change` is to a plain folder; `plainly` gives it the same model, and nothing else of the form."""

    change: Change
    plainly: Change = lambda _: None


def components(folder: Path) -> Iterator[str]:
    """With weights under the names that diffusers and transformers give."""
    yield from sorted({path.parent.name for path in folder.glob("*/*model.safetensors")})


def large(folder: Path) -> list[str]:
    return [component for component in components(folder) if component in LARGE]


def all_in_shards(folder: Path) -> None:
    for component in large(folder):
        in_shards(folder, component)


def all_as_variant(folder: Path) -> None:
    for component in components(folder):
        as_variant(folder, component)


def all_in_halves(folder: Path) -> None:
    for component in components(folder):
        in_halves(folder, component)


def rounded(folder: Path) -> None:
    """As float32, with the numbers that bfloat16 has."""
    all_in_halves(folder)
    for component in components(folder):
        for path in shards(folder / component):
            tensors = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in load_file(path).items()}
            save_file(tensors, path, metadata={"format": "pt"})


FORMS = {
    "shards": Form(all_in_shards),
    "variant": Form(all_as_variant),
    "links": Form(linked),
    "halves": Form(all_in_halves, rounded),
    "published": Form(lambda folder: as_published(folder, large(folder)), with_pieces),
}


async def made(name: str, folder: Path) -> Made:
    """Latents and frames of one session."""
    pipeline = LocalPipeline(configuration(name, folder), ENGINE)
    try:
        session = await pipeline.pipeline.open(asked(pipeline.config, OURS))
        async with aclosing(session.events()) as events:
            chunks = [event async for event in events if isinstance(event, FrameChunk)]
        return np.concatenate([chunk.latents for chunk in chunks], 1), np.concatenate([chunk.pixels() for chunk in chunks])
    finally:
        await pipeline.aclose()


def changed(plain: Path, folder: Path, change: Change) -> Path:
    """A copy of `plain` that is changed, and pinned by nothing."""
    shutil.copytree(plain, folder)
    (folder / CHECKSUMS).unlink()
    change(folder)
    return folder


def apart(a: Made, b: Made) -> float:
    """NaN is apart from everything."""
    return max(float(np.abs(one.astype(np.float64) - other).max()) for one, other in zip(a, b, strict=True))


def compare(name: str, folder: Path) -> list[float]:
    """By form."""
    make_tiny(name, folder / "plain")
    plain: dict[Change, Made] = {}
    differences = []
    for label, form in FORMS.items():
        if form.plainly not in plain:
            plain[form.plainly] = asyncio.run(made(name, changed(folder / "plain", folder / f"{label}, plainly", form.plainly)))
        here = asyncio.run(made(name, changed(folder / "plain", folder / label, form.change)))
        differences.append(apart(here, plain[form.plainly]))
    return differences


def main() -> int:
    """Print the table; 1 if anything differs."""
    torch.set_num_threads(1)
    began, same = time.monotonic(), True
    print(f"{'family':<15}" + "".join(f"{label:>11}" for label in FORMS))
    for name in sys.argv[1:] or sorted(tiny_checkpoints()):
        with tempfile.TemporaryDirectory(prefix="headrace-parity-") as folder:
            differences = compare(name, Path(folder))
        print(f"{name:<15}" + "".join(f"{value:>11.3g}" for value in differences), flush=True)
        same = same and not any(differences)
    print(f"in {time.monotonic() - began:.0f} s")
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
