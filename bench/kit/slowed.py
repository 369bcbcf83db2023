"""The model's own stages, with a decoder that takes longer while somebody wants it to: a fault to be injected into a running cluster.

The file that the environment names holds the seconds that each chunk is to take longer; without it nothing is different. It slows those
replicas that run when it is written, as a machine would that went bad: one that is started in their place is sound.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_core.config import ModelConfig
from model_core.families.interface import Memory, Painter
from model_core.families.registry import family
from model_core.local import build_denoiser, build_text_encoder
from model_core.stages.decoder import LocalDecoder
from model_core.stages.interface import Denoiser
from model_core.types import Latents

FILE_VARIABLE = "HEADRACE_BENCH_SLOWED"

__all__ = ["FILE_VARIABLE", "build_decoder", "build_denoiser", "build_text_encoder", "slower"]


@contextmanager
def slower(file: Path, seconds: float) -> Iterator[None]:
    """Every chunk takes so much longer meanwhile."""
    file.write_text(str(seconds))
    try:
        yield
    finally:
        file.unlink()


class SlowedPainter:
    """`inner`, and a sleep on the decode stage's thread."""

    def __init__(self, inner: Painter, file: Path) -> None:
        self._inner = inner
        self._file = file
        self._since = time.time()

    def fresh(self) -> Memory:
        return self._inner.fresh()

    def paint(self, latents: Latents, memory: Memory) -> tuple[NDArray[np.uint8], Memory]:
        with suppress(FileNotFoundError):
            if self._file.stat().st_mtime > self._since:
                time.sleep(float(self._file.read_text()))
        return self._inner.paint(latents, memory)


def build_decoder(config: ModelConfig, denoiser: Denoiser) -> LocalDecoder:
    painter = SlowedPainter(family(config.family).parts.painter(config), Path(os.environ[FILE_VARIABLE]))
    return LocalDecoder(painter, config, denoiser)
