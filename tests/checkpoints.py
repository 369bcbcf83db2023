"""Small checkpoints of each family, made once a run, and what is made with them."""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from model_core.config import EngineConfig
from model_core.engine.engine import Engine
from model_core.families.checkpoints.checkpoint import CHECKSUMS, Checkpoint, write_checksums
from model_core.families.common.config import CheckpointConfig
from model_core.families.described import Choice, describe
from model_core.families.interface import Conditioner, Embedder, Sampler
from model_core.families.registry import family, tiny_checkpoints
from model_core.families.tiny import make_tiny
from model_core.types import Conditioning, Guidance, SessionContext, TextEmbedding
from tests.pictures import picture

STEPS = 3


@cache
def folder(name: str) -> Path:
    """The family's small checkpoint, for reading."""
    path = Path(tempfile.mkdtemp(prefix="headrace-test-")) / name
    make_tiny(name, path)
    return path


def copied(name: str, into: Path) -> Path:
    """The same in `into`, to be changed."""
    path = into / name
    shutil.copytree(folder(name), path)
    (path / CHECKSUMS).unlink()
    return path


@cache
def folder_with_taehv(name: str) -> Path:
    """The same with a TAEHV in it, for reading."""
    path = Path(tempfile.mkdtemp(prefix="headrace-test-")) / name
    shutil.copytree(folder(name), path)
    if not (path / "taehv").exists():
        shutil.copytree(folder("causal-wan") / "taehv", path / "taehv")
    write_checksums(path)
    return path


def config(name: str, root: Any = None, **choice: Any) -> CheckpointConfig:
    """Of the small checkpoint, or of `root`, a variant of it."""
    small = tiny_checkpoints()[name]
    given = {"height": small.height, "width": small.width, "frames": small.frames, "steps": STEPS} | choice
    return describe(Choice(checkpoint=Checkpoint(folder=str(root or folder(name))), **given))


@cache
def parts(name: str) -> tuple[CheckpointConfig, Embedder, Sampler]:
    """Shared by tests: neither keeps anything of a session."""
    torch.set_num_threads(1)
    settings = config(name)
    made = family(settings.family).parts
    return settings, made.embedder(settings), made.sampler(settings, EngineConfig(batch_buckets=(1, 2, 4)))


def engine(name: str) -> Engine:
    settings, _, sampler = parts(name)
    return Engine(sampler, settings, EngineConfig(batch_buckets=(1, 2, 4)))


def context(name: str, prompt: str, seed: int, steps: int = STEPS) -> SessionContext:
    settings, embedder, _ = parts(name)
    embedding = embedded(embedder, prompt)
    led = guidance(embedder, settings.guidance, settings.negative_prompt)
    return SessionContext(prompt, seed, steps, embedding, num_frames=settings.grid.max_frames, given=given(name, seed), guidance=led)


def embedded(embedder: Embedder, prompt: str) -> TextEmbedding:
    tokens, mask = embedder.embed([prompt])
    return TextEmbedding(prompt, tokens[0], mask[0])


def guidance(embedder: Embedder, scale: float, negative: str = "") -> Guidance:
    """As a pipeline asks for it."""
    return Guidance(scale, embedded(embedder, negative)) if scale > 1 else Guidance()


def image(name: str, seed: int) -> Image.Image:
    """What a session with that seed is given, where its model takes an image: at the size served, so that nobody resamples it."""
    return picture(config(name).height, config(name).width, seed)


@cache
def conditioner(name: str) -> Conditioner:
    return family(config(name).family).parts.conditioner(config(name))


def given(name: str, seed: int) -> Conditioning | None:
    if not config(name).needs_media:
        return None
    with torch.inference_mode():
        return conditioner(name).condition(np.asarray(image(name, seed))[None])
